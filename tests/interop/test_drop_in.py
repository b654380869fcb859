"""A running node changes its forwarder under a live connection: Go's for ours, and back (docs/drop-in.md).

``told to end``: SIGTERM; VPP stands by itself and stays. ``killed``: SIGKILL, the same VPP with all that was in it.
``pod killed``: SIGKILL, and VPP with it, as where a container has both.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from nsmctl.lab import daemons
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.processes import kill, marked

from . import peers, takeovers
from .casts import ALL_GO, Cast, Mixed, played_by
from .course import CLIENT, ENDPOINT, PLACES, RATE, Course, course

OUR_FORWARDER = Cast("Go", ("forwarder",))
WAYS = ("told to end", "killed", "pod killed")
OTHER_PORT = 4343
"""Of the probes that run on while ``Course`` sends its own."""

pytestmark = [
    pytest.mark.minutes,
    pytest.mark.timeout(400),
    pytest.mark.parametrize("theatre", played_by(ALL_GO), indirect=True),
]

EXPORTS = {"NSM_OPEN_TELEMETRY_ENDPOINT": "otel-collector:4317", "NSM_METRICS_EXPORT_INTERVAL": "10s"}
"""What deployments of the Go forwarder set and ours does not heed."""


def with_its_environment(stage: Mixed, *, has_vpp: bool, **more: str) -> Daemon:
    """Our forwarder with Go's variables, but where it keeps its state; without a VPP it starts one by itself.

    Its rings are those of the acceptance's labs: at this rate the shipped ones hold 30 ms, less than a busy machine
    keeps VPP waiting.
    """
    ours = daemons.forwarder(stage.world.topology, stage.near, stage.forwarder_env)
    kept = {name: ours.env[name] for name in ("NSM_STATE_DIR", *stage.forwarder_env)}
    env = {**peers.forwarder(stage.near).env, **kept, **more}
    if not has_vpp:
        del env["NSM_VPP_API_SOCKET"], env["NSM_VPP_INIT"]
    return replace(ours, env=env)


def end_vpp(stage: Mixed) -> None:
    """The first node's VPP, whoever started it."""
    for process in marked("", stage.near.vpp_directory):
        kill(process)


@asynccontextmanager
async def go_again(stage: Mixed) -> AsyncIterator[str]:
    """The first node's forwarder by name; whatever the block did, a Go one on a VPP of its own stands there again."""
    name = f"{stage.near.name}/forwarder"
    try:
        yield name
    finally:
        await asyncio.to_thread(stage.world.end, name)
        await asyncio.to_thread(end_vpp, stage)
        stage.world.cast = ALL_GO
        await asyncio.to_thread(stage.start, name)


@asynccontextmanager
async def outage(run: Course, outages: dict[str, float], change: str) -> AsyncIterator[None]:
    """Probes run through the block; the longest time without a packet is noted."""
    flows = flows_of(run.addresses, OTHER_PORT)
    with run.stage.probes(flows, CLIENT, ENDPOINT, rate=RATE) as running:
        yield
        outages[change] = takeovers.outage_ms(await asyncio.to_thread(running.finish))


def ours_here(run: Course) -> list[str]:
    """What our forwarder of the first node has there, and with its workloads."""
    facts = run.stage.census().facts
    found = [fact for kind in facts.values() for fact in kind if "nsm1-" in fact or "host-nv" in fact]
    workloads = run.interfaces() if run.place.nodes == 1 else run.interfaces()[:1]
    return found + [name for links in workloads for name in links]


async def end_gos(stage: Mixed, name: str, way: str) -> None:
    if way == "told to end":
        await asyncio.to_thread(stage.world.end, name)
        return
    await asyncio.to_thread(stage.kill, name)
    if way == "pod killed":
        await asyncio.to_thread(end_vpp, stage)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("way", WAYS)
async def test_ours_takes_over_and_gives_back(
    stage: Mixed, where: str, way: str, record_property: Callable[[str, object], None]
) -> None:
    outages: dict[str, float] = {}
    record_property(takeovers.OUTAGES, outages)
    async with course(stage, where) as run, go_again(stage) as name:
        await run.connect()
        await run.ping()
        async with outage(run, outages, "Go's for ours"):
            await end_gos(stage, name, way)
            stage.world.cast = OUR_FORWARDER
            ours = with_its_environment(stage, has_vpp=way != "pod killed", NSM_KEEP_CONNECTIONS="false")
            await asyncio.to_thread(stage.world.start, ours)
            await run.healed("forwarder")
        await run.refresh()
        async with outage(run, outages, "ours for Go's"):
            await asyncio.to_thread(stage.world.end, name)
            assert ours_here(run) == []
            stage.world.cast = ALL_GO
            await asyncio.to_thread(stage.start, name)
            await run.healed("forwarder")
        await run.close()


@pytest.mark.parametrize("where", ["local-ip", "wireguard"])
async def test_a_client_of_the_usual_lifetime_is_healed_by_the_news(stage: Mixed, where: str) -> None:
    async with course(stage, where) as run, go_again(stage) as name:
        await run.connect({})
        await run.ping()
        mark = stage.mark_log(name)
        await end_gos(stage, name, "told to end")
        stage.world.cast = OUR_FORWARDER
        await asyncio.to_thread(stage.world.start, with_its_environment(stage, has_vpp=True, **EXPORTS))
        await run.whole()
        assert ours_here(run) != []
        named = [each["variable"] for each in stage.events(name, "setting.ignored", since=mark)]
        assert sorted(named) == sorted(EXPORTS)
        await run.close()
