"""A bench per test; descriptors are counted before and after each."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.nsm.transport.bench import REQUEST, Bench, ask, assert_no_leak, make_bench, open_fds, request


@pytest.fixture(scope="session")
def _warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Pollers and pipes of grpcio open once per process and kind."""

    async def use_everything() -> None:
        bench = await make_bench(tmp_path_factory.mktemp("warm"))
        await ask(await bench.peer(), request())
        go = await bench.peer_server({REQUEST.path: lambda *_: b""})
        await bench.channel(go.url).unary(REQUEST, request(), timeout=10)
        await bench.close()

    for _ in range(2):
        asyncio.run(use_everything())


@pytest.fixture
async def bench(tmp_path: Path, _warm: None) -> AsyncIterator[Bench]:
    await asyncio.to_thread(int)
    before = open_fds()
    made = await make_bench(tmp_path)
    yield made
    await made.close()
    await assert_no_leak(before)
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240
