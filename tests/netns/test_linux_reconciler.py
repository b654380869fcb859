"""The reconciler on the linux dataplane: what it leaves, and what it does when a connection changes its kind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, VxlanEnd
from forwarder_vpp.dataplane.linux.dataplane import LinuxDataplane
from forwarder_vpp.reconciler.reconciler import Reconciler
from nsm.model.context import PolicyRoute, Route
from nsm.model.errors import Code, NsmError
from tests.netns.linux_node import census, client_end, dataplane, inside, local, ping

pytestmark = [pytest.mark.linux, pytest.mark.netns]


@pytest.fixture
def places(make_netns: Callable[[str], Path]) -> list[Path]:
    node = make_netns("n")
    inside(node, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    return [node, make_netns("c"), make_netns("e")]


@pytest.fixture
async def plane(places: list[Path], tmp_path: Path) -> AsyncIterator[LinuxDataplane]:
    async with dataplane(places[0], tmp_path) as plane:
        yield plane


@pytest.fixture
async def reconciler(plane: LinuxDataplane) -> AsyncIterator[Reconciler]:
    reconciler = Reconciler(plane, quarantine=60)
    await reconciler.start([])
    yield reconciler
    await reconciler.stop()


def connection(plane: LinuxDataplane, places: list[Path]) -> Intent:
    near, far = (plane.namespaces.learn(str(each)) for each in places[1:])
    return local(near, far)


def soon() -> float:
    return asyncio.get_running_loop().time() + 10


async def test_request_refresh_and_close(
    plane: LinuxDataplane, reconciler: Reconciler, places: list[Path]
) -> None:
    before = census(*places)
    intent = connection(plane, places)
    assert await reconciler.realise(intent, soon())
    writes = plane.writes
    assert not await reconciler.realise(replace(intent, expires=9.0), soon())
    assert plane.writes == writes
    assert ping(places[1], "172.16.1.2") == 5
    reconciler.remove(intent.id)
    await reconciler.drain()
    assert census(*places) == before


@pytest.mark.parametrize("rules", [(), (PolicyRoute("172.16.1.1/32", "6", "5201"),)], ids=["plain", "rules"])
async def test_what_is_withdrawn_is_gone_at_both_ends(
    plane: LinuxDataplane, reconciler: Reconciler, places: list[Path], rules: tuple[PolicyRoute, ...]
) -> None:
    before = census(*places)
    intent = connection(plane, places)
    assert isinstance(intent.client, KernelEnd)
    await reconciler.realise(replace(intent, client=replace(intent.client, rules=rules)), soon())
    reconciler.remove(intent.id)
    await reconciler.withdraw(intent.id, soon())
    assert census(*places) == before


async def test_a_request_that_fails_leaves_nothing(
    plane: LinuxDataplane, reconciler: Reconciler, places: list[Path]
) -> None:
    inside(places[2], "ip", "link", "add", "nse-1", "type", "bridge")
    before = census(*places)
    with pytest.raises(NsmError) as refused:
        await reconciler.realise(connection(plane, places), soon())
    assert refused.value.code is Code.ALREADY_EXISTS
    await reconciler.drain()
    assert census(*places) == before


async def test_a_refused_change_leaves_the_connection_as_it_was(
    plane: LinuxDataplane, reconciler: Reconciler, places: list[Path]
) -> None:
    inside(places[1], "ip", "link", "set", "lo", "up")
    inside(places[1], "ip", "route", "add", "203.0.113.0/24", "dev", "lo")
    intent = connection(plane, places)
    await reconciler.realise(intent, soon())
    before = census(*places)
    end = client_end(intent.client.netns, number=1)  # type: ignore[union-attr]
    changed = replace(intent, client=replace(end, routes=(*end.routes, Route("203.0.113.0/24"))))
    with pytest.raises(NsmError):
        await reconciler.realise(changed, soon())
    await reconciler.drain()
    assert census(*places) == before
    assert ping(places[1], "172.16.1.2") == 5


async def test_a_local_connection_becomes_remote_and_local_again(
    plane: LinuxDataplane, reconciler: Reconciler, places: list[Path]
) -> None:
    before = census(*places)
    intent = connection(plane, places)
    remote = replace(intent, payload="ETHERNET", mtu=1426, endpoint=VxlanEnd("192.0.2.1", "192.0.2.2", 9))
    for each, kind in ((intent, "veth"), (remote, "vxlan"), (intent, "veth")):
        assert await reconciler.realise(each, soon())
        await reconciler.drain()
        assert f" {kind} " in inside(places[1], "ip", "-d", "link", "show", "nsm-1")
        assert "172.16.1.2" in inside(places[1], "ip", "route")
    assert ping(places[1], "172.16.1.2") == 5
    reconciler.remove(intent.id)
    await reconciler.drain()
    assert census(*places) == before


async def test_a_removed_link_is_made_again_by_a_resync(
    plane: LinuxDataplane, reconciler: Reconciler, places: list[Path]
) -> None:
    await reconciler.realise(connection(plane, places), soon())
    inside(places[1], "ip", "link", "del", "nsm-1")
    reconciler.lost()
    await reconciler.drain()
    assert ping(places[1], "172.16.1.2") == 5
