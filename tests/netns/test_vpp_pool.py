"""Ready pairs on a real VPP: taken, adopted, emptied, and nothing left of them."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd
from forwarder_vpp.dataplane.vpp.dataplane import VppDataplane, VppOptions
from forwarder_vpp.dataplane.vpp.process import VppProcess
from forwarder_vpp.reconciler.reconciler import Reconciler
from nsm.model.context import Route
from nsm.model.errors import NsmError
from nsm.model.mechanism import IP
from nsmctl.lab import census
from nsmctl.lab.census import Census
from nsmctl.lab.namespaces import entered
from tests.contract.targets import vpp_binary
from tests.netns.vpp_node import inside, namespaces, ping

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

NODE, WORKLOADS = "vpool-n1", ("vpool-w1", "vpool-w2")
SIZE = 2
PATIENCE = 30.0

_SCRIPT = """
import asyncio, sys
from pathlib import Path
from tests.netns.test_vpp_pool import SIZE, agent, realise, until

async def main(folder, count):
    async with agent(folder, SIZE) as running:
        await until(running[0], SIZE)
        for number in range(1, count + 1):
            await realise(running, number)
            await until(running[0], SIZE)
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""

Running = tuple[VppDataplane, Reconciler]


@pytest.fixture
def places() -> Iterator[None]:
    """This process in the node's namespace, and two workloads."""
    vpp_binary()
    with namespaces(NODE, *WORKLOADS), entered(Path(f"/run/netns/{NODE}")):
        yield


@pytest.fixture
async def folder(places: None, tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    await VppProcess(tmp_path / "vpp").stop()


@asynccontextmanager
async def agent(folder: Path, size: int, *numbers: int) -> AsyncIterator[Running]:
    """A dataplane whose store has the connections ``numbers``, and its reconciler, ended cleanly."""
    options = VppOptions(uplink="none", warm_pool=size)
    dataplane = VppDataplane("127.0.0.1", folder, options, instance="vpool")
    await dataplane.start()
    reconciler = Reconciler(dataplane, quarantine=600)
    try:
        await reconciler.start([connection(dataplane, number) for number in numbers])
        yield dataplane, reconciler
        await reconciler.drain()
    finally:
        await reconciler.stop()
        await dataplane.close()


def connection(dataplane: VppDataplane, number: int) -> Intent:
    client, endpoint = (
        KernelEnd(
            netns=dataplane.namespaces.learn(f"/run/netns/{name}"),
            interface=f"nsm-{number}",
            addresses=(f"10.{number}.0.{side}/32",),
            routes=(Route(f"10.{number}.0.{3 - side}/32"),),
        )
        for side, name in enumerate(WORKLOADS, start=1)
    )
    return Intent(f"id{number}", f"nsm1-vpool{number}", IP, 1400, client, endpoint)


async def realise(running: Running, number: int) -> None:
    dataplane, reconciler = running
    deadline = asyncio.get_running_loop().time() + PATIENCE
    await reconciler.realise(connection(dataplane, number), deadline)


async def until(dataplane: VppDataplane, size: int) -> None:
    """Return when the pool has ``size`` pairs."""
    async with asyncio.timeout(PATIENCE):
        await dataplane.pool.filled(size)


async def answered(dataplane: VppDataplane, number: int) -> int:
    """How many of five pings, while no pair is made: VPP stands still meanwhile, and ping is not patient."""
    await until(dataplane, dataplane.options.warm_pool)
    return await asyncio.to_thread(ping, WORKLOADS[0], f"10.{number}.0.2")


def counted(folder: Path) -> Census:
    """Links and packet sockets of the node and the workloads, and everything in VPP."""
    spaces = [Path(f"/run/netns/{name}") for name in (NODE, *WORKLOADS)]
    return census.take(spaces=spaces, vpp_clis=[folder / "vpp" / "cli.sock"], names=lambda _: False)


def far_ends() -> set[str]:
    """The node's ends of pairs from the pool, whoever has them."""
    lines = inside(NODE, "ip", "-o", "link", "show", "type", "veth").splitlines()
    return {name for line in lines if (name := line.split()[1].partition("@")[0]).startswith("nvp")}


async def left(before: Census, folder: Path) -> tuple[str, ...]:
    """What a removal that goes on behind has not taken away in the end."""
    found = before.difference(await asyncio.to_thread(counted, folder))
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while found and loop.time() < end:
        found = before.difference(await asyncio.to_thread(counted, folder))
    return found


async def killed_agent(folder: Path, count: int) -> None:
    """An agent has made ``count`` connections and died by SIGKILL with a full pool."""
    process = await create_subprocess_exec(
        sys.executable, "-c", _SCRIPT, str(folder), str(count), stdout=PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            assert b"ready\n" in [line async for line in _up_to(b"ready\n", process.stdout)]
    finally:
        process.kill()
        await process.wait()


async def _up_to(last: bytes, stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    async for line in stream:
        yield line
        if line == last:
            return


async def test_a_connection_takes_two_pairs_in_one_turn_and_carries_packets(folder: Path) -> None:
    async with agent(folder, 0):
        before = await asyncio.to_thread(counted, folder)
    async with agent(folder, SIZE) as running:
        dataplane, reconciler = running
        await until(dataplane, SIZE)
        ready = far_ends()
        counters = dataplane.session.counters
        batches, made = counters.batches, counters.by_name["af_packet_create_v3"]
        await realise(running, 1)
        assert counters.batches - batches == 1
        assert counters.by_name["af_packet_create_v3"] == made
        assert await answered(dataplane, 1) == 5
        assert ready < far_ends()
        reconciler.remove("id1")
        await reconciler.drain()
    assert await left(before, folder) == ()


async def test_the_next_agent_writes_nothing_and_goes_on_with_the_pool(folder: Path) -> None:
    await killed_agent(folder, 1)
    there = far_ends()
    assert len(there) == 2 + SIZE
    async with agent(folder, SIZE, 1) as running:
        dataplane, _ = running
        assert (dataplane.session.counters.mutating, dataplane.netlink.writes) == (0, 0)
        await until(dataplane, SIZE)
        assert far_ends() == there
        assert await answered(dataplane, 1) == 5
        await realise(running, 2)
        assert await answered(dataplane, 2) == 5
        assert there <= far_ends()
    assert len(far_ends()) == 4


async def test_without_a_pool_the_next_agent_removes_what_waits_and_nothing_else(folder: Path) -> None:
    await killed_agent(folder, 1)
    there = far_ends()
    async with agent(folder, 0, 1) as (dataplane, _):
        assert len(far_ends()) == 2
        assert far_ends() < there
        assert dataplane.session.counters.by_name["af_packet_delete"] == SIZE
        assert await answered(dataplane, 1) == 5


async def test_after_vpps_death_connections_come_back_and_the_pool_is_another(folder: Path) -> None:
    async with agent(folder, SIZE) as running:
        dataplane, reconciler = running
        await until(dataplane, SIZE)
        await realise(running, 1)
        taken = far_ends()
        await until(dataplane, SIZE)
        waiting = far_ends() - taken
        lost = asyncio.Event()
        dataplane.on_lost(lost.set)
        assert dataplane.process is not None
        os.kill(dataplane.process.pid, signal.SIGKILL)
        await lost.wait()
        await reconciler.drain()
        assert await answered(dataplane, 1) == 5
        assert taken <= far_ends()
        assert not waiting & far_ends()
        before = far_ends()
        await realise(running, 2)
        assert await answered(dataplane, 2) == 5
        assert before <= far_ends()


async def test_a_pair_that_only_the_kernel_had_handed_over_is_cleared_away(folder: Path) -> None:
    """The agent died in between: the near end is the workload's, the far one and VPP's interface the pool's."""
    async with agent(folder, 0):
        before = await asyncio.to_thread(counted, folder)
    await killed_agent(folder, 0)
    far = min(far_ends())
    near = far.replace("nvp", "nwp")
    inside(NODE, "ip", "link", "set", near, "netns", WORKLOADS[0], "name", "nsm-1", "up")
    async with agent(folder, SIZE) as (dataplane, _):
        assert far not in far_ends()
        await until(dataplane, SIZE)
        assert len(far_ends()) == SIZE
    assert await left(before, folder) == ()


async def test_a_name_that_is_taken_is_refused_and_nothing_stays(folder: Path) -> None:
    inside(WORKLOADS[0], "ip", "link", "add", "nsm-1", "type", "veth", "peer", "name", "other")
    async with agent(folder, 0):
        before = await asyncio.to_thread(counted, folder)
    async with agent(folder, SIZE) as running:
        dataplane, _ = running
        await until(dataplane, SIZE)
        ready = far_ends()
        with pytest.raises(NsmError, match="expected a free interface name"):
            await realise(running, 1)
        await until(dataplane, SIZE)
        assert len(ready & far_ends()) >= SIZE - 1  # the other end's may have been handed over before
    assert await left(before, folder) == ()
