"""Waiting for a WireGuard handshake: where the first one comes to nothing, VPP is made to begin another."""

import asyncio
from base64 import b64encode
from ipaddress import ip_address, ip_interface

import pytest

from forwarder_vpp.dataplane.contract.items import Key
from forwarder_vpp.dataplane.vpp.answering import Answering
from forwarder_vpp.dataplane.vpp.messages import wireguard as wg
from forwarder_vpp.dataplane.vpp.messages.common import ANY
from forwarder_vpp.dataplane.vpp.messages.core import ControlPing
from forwarder_vpp.dataplane.vpp.messages.interface import ADMIN_UP, InterfaceFlags
from forwarder_vpp.dataplane.vpp.objects.wireguard_peer import WireguardPeer, WireguardPeers
from forwarder_vpp.dataplane.vpp.session import VppSession
from forwarder_vpp.dataplane.vpp.waiting import Waiting
from nsm.model.errors import NsmError
from tests.fakes.fake_vpp.server import FakeVpp

PATIENCE = 0.01
LONG = 10.0
INTERFACE, PEER = Key("vpp_wireguard", "one"), Key("vpp_wireguard_peer", "one/other")


@pytest.fixture
async def waiting(vpp: VppSession) -> Waiting:
    found = Waiting(vpp, 1)
    await found.subscribe(vpp)
    return found


class Handle:
    """Of the interface of every peer."""

    def __init__(self, index: int) -> None:
        self._index = index

    def handle(self, key: Key) -> object:
        return self._index


def wireguard(number: int = 1) -> wg.WireguardCreate:
    return wg.WireguardCreate(
        ANY, ANY, bytes([number] * 32), bytes(32), 51820 + number, ip_address("10.0.0.1")
    )


async def made_here(vpp: VppSession, waiting: Waiting, number: int = 1) -> tuple[int, int]:
    """Interface and peer as the dataplane makes them, not up yet."""
    index = (await vpp.call(wireguard(number))).sw_if_index
    item = WireguardPeer(INTERFACE, b64encode(bytes([number] * 32)).decode(), "10.0.0.2", 51820)
    peer = await WireguardPeers(vpp, waiting.peer_made).create(item, Handle(index))
    assert isinstance(peer, int)
    return index, peer


async def tunnel(vpp: VppSession) -> tuple[int, int]:
    """Interface and peer that another agent has made, up."""
    made = await vpp.call(wireguard())
    peer = wg.PeerAdd(
        peer_index=0,
        preshared_key=bytes(32),
        preshared_key_set=False,
        public_key=bytes(range(1, 33)),
        port=51822,
        persistent_keepalive=10,
        table_id=0,
        endpoint=ip_address("10.0.0.2"),
        sw_if_index=made.sw_if_index,
        flags=0,
        allowed_ips=(ip_interface("0.0.0.0/0"),),
    )
    index = (await vpp.call(peer)).peer_index
    await vpp.call(InterfaceFlags(made.sw_if_index, ADMIN_UP))
    return made.sw_if_index, index


def begun(fake: FakeVpp, index: int) -> int:
    """How often the interface went down and up again after its first rise, strictly in turn."""
    flags = [
        each.flags for each in fake.received if isinstance(each, InterfaceFlags) and each.sw_if_index == index
    ]
    assert flags[1:] == [0, ADMIN_UP] * (len(flags) // 2)
    return len(flags) // 2


@pytest.mark.parametrize("in_vain", [0, 1, 3])
async def test_vpp_begins_anew_until_a_handshake_is_not_in_vain(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting, in_vain: int
) -> None:
    fake.model.handshakes_in_vain = in_vain
    index, peer = await tunnel(vpp)
    async with asyncio.timeout(LONG):
        await waiting.established(index, peer, PATIENCE)
    assert begun(fake, index) == in_vain
    assert set(fake.model.peers) == {peer}


async def test_an_event_within_its_time_is_enough(vpp: VppSession, fake: FakeVpp, waiting: Waiting) -> None:
    fake.model.handshakes_in_vain = 1
    index, peer = await tunnel(vpp)
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
        group.create_task(waiting.established(index, peer, LONG))
        await asyncio.sleep(0)
        await vpp.dump(wg.PeerDump())  # answered after what was asked before it
        fake.emit(wg.PeerEvent(pid=1, peer_index=peer, flags=wg.ESTABLISHED))
    assert begun(fake, index) == 0


async def test_an_interface_that_is_gone_ends_the_waiting(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting
) -> None:
    fake.model.handshakes_in_vain = 1
    index, peer = await tunnel(vpp)
    await vpp.call(wg.WireguardDelete(index))
    with pytest.raises(NsmError, match="sw_interface_set_flags"):
        async with asyncio.timeout(LONG):
            await waiting.established(index, peer, PATIENCE)


@pytest.mark.parametrize("before", [True, False], ids=["before-it-is-waited-for", "meanwhile"])
async def test_a_peer_of_our_own_making_is_heard_of_without_a_message(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting, *, before: bool
) -> None:
    index, peer = await made_here(vpp, waiting)
    begin = len(fake.received)
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
        if not before:
            group.create_task(waiting.established(index, peer, LONG))
        await vpp.call(InterfaceFlags(index, ADMIN_UP))
        await vpp.call(ControlPing())  # answered after the event
        if before:
            group.create_task(waiting.established(index, peer, LONG))
    assert fake.names()[begin:] == ["sw_interface_set_flags", "control_ping"]


async def test_a_peer_of_our_own_making_whose_handshake_was_in_vain_is_asked_about(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting
) -> None:
    fake.model.handshakes_in_vain = 2
    index, peer = await made_here(vpp, waiting)
    await vpp.call(InterfaceFlags(index, ADMIN_UP))
    async with asyncio.timeout(LONG):
        await waiting.established(index, peer, PATIENCE)
    assert begun(fake, index) == 2


async def test_a_session_does_not_outlive_its_peer_or_vpp(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting
) -> None:
    """Who gets the index next is waited for: one that was adopted, after asking."""
    index, peer = await made_here(vpp, waiting)
    await vpp.call(InterfaceFlags(index, ADMIN_UP))
    await waiting.established(index, peer, LONG)
    await vpp.call(wg.PeerRemove(peer))
    await vpp.call(wg.WireguardDelete(index))
    fake.model.handshakes_in_vain = 1
    index, again = await made_here(vpp, waiting, 2)
    assert again == peer
    await vpp.call(InterfaceFlags(index, ADMIN_UP))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await waiting.established(index, again, LONG)
    await vpp.call(InterfaceFlags(index, 0))
    await vpp.call(InterfaceFlags(index, ADMIN_UP))
    await waiting.established(index, again, LONG)
    waiting.forget()
    begin = len(fake.received)
    await waiting.established(index, again, LONG)
    assert "wireguard_peers_v2_dump" in fake.names()[begin:]


@pytest.mark.parametrize("in_vain", [0, 2])
async def test_a_handshake_that_the_far_side_waits_for_is_looked_after(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting, in_vain: int
) -> None:
    fake.model.handshakes_in_vain = in_vain
    index, peer = await tunnel(vpp)
    answering = Answering(waiting, {INTERFACE: index, PEER: peer}, PATIENCE)
    answering.look_after(INTERFACE, PEER)
    await done(answering)
    assert begun(fake, index) == in_vain


async def test_a_tunnel_that_is_another_by_now_is_left_alone(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting
) -> None:
    """Its number may be another connection's."""
    fake.model.handshakes_in_vain = 1
    index, peer = await tunnel(vpp)
    known = {INTERFACE: index, PEER: peer}
    answering = Answering(waiting, known, PATIENCE)
    answering.look_after(INTERFACE, PEER)
    await asyncio.sleep(0)
    del known[PEER]
    await done(answering)
    assert begun(fake, index) == 0


@pytest.mark.parametrize("turns", [0, 1, 3, 30])
async def test_what_is_looked_after_ends_with_the_dataplane(
    vpp: VppSession, fake: FakeVpp, waiting: Waiting, turns: int
) -> None:
    """Before it has begun, while VPP is asked, and while it waits: it has ended when the close returns."""
    fake.model.handshakes_in_vain = 1
    index, peer = await tunnel(vpp)
    answering = Answering(waiting, {INTERFACE: index, PEER: peer}, LONG)
    answering.look_after(INTERFACE, PEER)
    (task,) = answering._tasks
    for _ in range(turns):
        await asyncio.sleep(0)
    await answering.close()
    assert task.cancelled()
    assert begun(fake, index) == 0


async def done(answering: Answering) -> None:
    async with asyncio.timeout(LONG):
        await asyncio.gather(*answering._tasks, return_exceptions=True)
