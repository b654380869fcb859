"""A bench per test; descriptors are counted before and after each."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from tests.unit.nsm.transport.bench import Bench, assert_no_leak, make_bench, open_fds


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    await grpc.aio.insecure_channel("unix:/nowhere").close()  # grpcio's own descriptors, once per process
    await asyncio.to_thread(int)
    before = open_fds()
    made = await make_bench(tmp_path)
    yield made
    await made.close()
    await assert_no_leak(before)
    assert list(tmp_path.iterdir()) == []
