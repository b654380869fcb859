"""The life of a connection with a Go client or a Go manager: refresh, Close, expiry, a manager that restarts."""

import asyncio
import socket

from nsmctl.lab import namespaces
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.processes import kill
from tests.scenes import carried, settled

from . import peers
from .casts import Mixed
from .conftest import GO_ON_LINUX, ON_LINUX
from .course import RATE
from .monitor import news_of

pytestmark = peers.needed

LIFETIME = "10s"
DEADLINE = "4s"
"""Refreshed every 2 s, expired 6 s after the last refresh: a deadline longer than the token would end it at once."""


def interfaces(lab: Mixed, workload: str) -> dict[str, int]:
    """Index of every interface that the mesh gave to a workload."""
    with namespaces.entered(lab.netns(workload)):
        return {name: index for index, name in socket.if_nameindex() if name != "lo"}


def gone(lab: Mixed, workload: str) -> bool:
    """Whether the workload's interfaces go away, if need be in the background."""
    return not settled(lambda: interfaces(lab, workload), lambda left: not left)


async def test_refreshes_of_a_go_client_lose_nothing_and_its_close_leaves_nothing(lab: Mixed) -> None:
    await asyncio.to_thread(lab.go_endpoint, "gs")
    async with news_of(lab.near, "gc") as near, news_of(lab.far, "gc") as far:
        client = await asyncio.to_thread(
            lab.go_client, "gc", "gs-service", NSM_MAX_TOKEN_LIFETIME=LIFETIME, NSM_REQUEST_TIMEOUT=DEADLINE
        )
        before = interfaces(lab, "gc"), interfaces(lab, "gs")
        with lab.probes(flows_of(client.addresses), "gc", "gs", rate=RATE) as running:
            first, *later = await near.expiries(4)
            verdicts = await asyncio.to_thread(running.finish)
        assert later == sorted(later)
        assert first < later[0]
        carried(verdicts)
        assert (interfaces(lab, "gc"), interfaces(lab, "gs")) == before, "the same interfaces"
        await asyncio.to_thread(lab.world.end, "gc")
        await near.deleted()
        await far.deleted()
    assert gone(lab, "gc")
    assert gone(lab, "gs")


@ON_LINUX
async def test_what_a_killed_go_client_had_is_gone_with_its_token(lab: Mixed) -> None:
    await asyncio.to_thread(lab.go_endpoint, "gs")
    async with news_of(lab.near, "gc") as near, news_of(lab.far, "gc") as far:
        client = await asyncio.to_thread(
            lab.go_client, "gc", "gs-service", NSM_MAX_TOKEN_LIFETIME=LIFETIME, NSM_REQUEST_TIMEOUT=DEADLINE
        )
        await asyncio.to_thread(kill, client.process)
        await near.deleted()
        await far.deleted()
    assert gone(lab, "gc")
    assert gone(lab, "gs")


@ON_LINUX
async def test_a_go_client_outlives_our_manager(lab: Mixed) -> None:
    await asyncio.to_thread(lab.go_endpoint, "gs")
    client = await asyncio.to_thread(
        lab.go_client, "gc", "gs-service", NSM_LIVENESS_CHECK_ENABLED="true", NSM_REQUEST_TIMEOUT="5s"
    )
    before = interfaces(lab, "gc")
    with lab.probes(flows_of(client.addresses), "gc", "gs", rate=RATE) as running:
        await asyncio.to_thread(lab.kill, "n1/manager")
        await asyncio.to_thread(lab.start, "n1/manager")
        async with news_of(lab.near, "gc") as near:
            (healed,) = (await near.established()).connections.values()
        verdicts = await asyncio.to_thread(running.finish)
    assert healed.route.segments[0].id == "gc-0"
    carried(verdicts)
    assert interfaces(lab, "gc") == before, "the same interface"


@GO_ON_LINUX
async def test_our_client_is_refreshed_and_closed_by_a_go_manager(go_lab: Mixed) -> None:
    await asyncio.to_thread(go_lab.endpoint, "os")
    async with news_of(go_lab.near, "oc") as near, news_of(go_lab.far, "oc") as far:
        (connected,) = await asyncio.to_thread(
            go_lab.client, "oc", "os-service", NSM_MAX_TOKEN_LIFETIME=LIFETIME, NSM_REQUEST_TIMEOUT=DEADLINE
        )
        before = interfaces(go_lab, "oc"), interfaces(go_lab, "os")
        with go_lab.probes(flows_of(connected), "oc", "os", rate=RATE) as running:
            expiries = await near.expiries(4)
            verdicts = await asyncio.to_thread(running.finish)
        assert expiries == sorted(expiries)
        carried(verdicts)
        assert (interfaces(go_lab, "oc"), interfaces(go_lab, "os")) == before, "the same interfaces"
        await asyncio.to_thread(go_lab.world.end, "oc")
        await near.deleted()
        await far.deleted()
    assert gone(go_lab, "oc")
    assert gone(go_lab, "os")


async def test_our_ports_of_wireguard_pass_go_managers(go_lab: Mixed) -> None:
    """Each connection has a port of its own; whoever does not know ours still reads 51820."""
    await asyncio.to_thread(go_lab.endpoint, "os")
    connections = {}
    for name in ("oc1", "oc2"):
        (connections[name],) = await asyncio.to_thread(go_lab.client, name, "os-service")
    ports: list[str] = []
    for name in connections:
        async with news_of(go_lab.far, name) as far:
            (seen,) = (await far.established()).connections.values()
        assert seen.mechanism is not None
        assert seen.mechanism.type == "WIREGUARD"
        assert (seen.mechanism.get("src_port"), seen.mechanism.get("dst_port")) == ("51820", "51820")
        ports += [seen.mechanism.get("src_own_port"), seen.mechanism.get("dst_own_port")]
    assert all(61000 <= int(port) <= 65535 for port in ports)
    assert len({ports[0], ports[2]}) == 2, "n1 has two"
    assert len({ports[1], ports[3]}) == 2, "n2 has two"
    await asyncio.to_thread(go_lab.remove, "oc1")
    carried(await asyncio.to_thread(go_lab.probe, connections["oc2"], "oc2", "os", rate=RATE, seconds=0.5))
