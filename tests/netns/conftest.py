"""Namespaces for tests: unique names, gone afterwards."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from nsm.model.mechanism import Mechanism
from nsmctl.errors import LabError
from nsmctl.lab import namespaces
from tests.netns.linux_node import Executor, dataplane, inside, underlay
from tests.netns.linux_sides import Side, Sides, end_all


@pytest.fixture
def make_netns() -> Iterator[Callable[[str], Path]]:
    """``make_netns("a")`` makes a namespace and gives its file; all are removed at the end."""
    made: list[str] = []

    def make(label: str) -> Path:
        name = f"t{os.getpid()}{uuid.uuid4().hex[:4]}{label}"
        try:
            path = namespaces.create(name)
        except LabError as error:
            pytest.skip(f"NO NAMESPACES: {error}")
        made.append(name)
        return path

    yield make
    for name in made:
        namespaces.delete(name)


@pytest.fixture
def places(make_netns: Callable[[str], Path]) -> list[Path]:
    nodes = [make_netns("n"), make_netns("m"), make_netns("c"), make_netns("e")]
    underlay(nodes[0], nodes[1])
    for workload in nodes[2:]:  # no address that comes of itself, and later
        inside(workload, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")
    return nodes


@pytest.fixture
def engine() -> str:
    """Which WireGuard makes the tunnels; tests of WireGuard say it, to others it does not matter."""
    return ""


@pytest.fixture
async def sides(places: list[Path], tmp_path: Path, engine: str) -> AsyncIterator[Sides]:
    first, second, client, endpoint = places
    engines = [engine] if engine else []
    async with (
        dataplane(first, tmp_path / "a", "192.0.2.1", engines=engines) as one,
        dataplane(second, tmp_path / "b", "192.0.2.2", engines=engines) as two,
    ):
        refusal = one.refusal(Mechanism("REMOTE", "WIREGUARD"), "IP")
        if engine and refusal is not None:
            pytest.skip(f"NO WIREGUARD BY {engine.upper()}: {refusal.message.partition(': ')[2]}")
        yield (
            Side(first, client, tmp_path / "a", one, Executor(one), one.namespaces.learn(str(client))),
            Side(second, endpoint, tmp_path / "b", two, Executor(two), two.namespaces.learn(str(endpoint))),
        )
    await asyncio.to_thread(end_all, tmp_path)
