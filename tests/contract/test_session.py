"""The session against the fake and against a real VPP: the same cases, the same answers."""

import asyncio
import contextlib
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from forwarder_vpp.dataplane.vpp.errors import VppError
from forwarder_vpp.dataplane.vpp.messages import acl, af_packet, core, interface, ip, l2, l3xc, vxlan
from forwarder_vpp.dataplane.vpp.messages import wireguard as wg
from forwarder_vpp.dataplane.vpp.messages.common import ANY, MadeInterface
from forwarder_vpp.dataplane.vpp.objects.af_packet import Ring, creation
from forwarder_vpp.dataplane.vpp.session import VppSession
from nsm.model.errors import Code
from tests.contract.targets import Target

V4 = ip_address("10.77.0.1")


def tunnel(vni: int, *, is_add: bool = True) -> vxlan.VxlanTunnel:
    return vxlan.VxlanTunnel(
        is_add=is_add,
        instance=ANY,
        src_address=V4,
        dst_address=ip_address("10.77.0.2"),
        src_port=4789,
        dst_port=4790,
        mcast_sw_if_index=ANY,
        encap_vrf_id=0,
        decap_next_index=vxlan.DECAP_L2_INPUT,
        vni=vni,
    )


def wireguard(number: int) -> wg.WireguardCreate:
    """``number`` makes key and port."""
    key = bytes([number, *range(1, 32)])
    return wg.WireguardCreate(ANY, 0, key, bytes(32), 53000 + number, V4)


def peer_of(index: int, number: int) -> wg.PeerAdd:
    """A peer of the interface ``index``; ``number`` makes its key."""
    return wg.PeerAdd(
        peer_index=0,
        preshared_key=bytes(32),
        preshared_key_set=False,
        public_key=bytes([number]) * 32,
        port=51820,
        persistent_keepalive=10,
        table_id=0,
        endpoint=ip_address("10.77.0.3"),
        sw_if_index=index,
        flags=0,
        allowed_ips=(ip_interface("0.0.0.0/0"), ip_interface("::/0")),
    )


class Tunnels:
    """Tunnels of one test, removed at its end."""

    def __init__(self, session: VppSession) -> None:
        self._session = session
        self._made: list[int] = []

    async def make(self, vni: int) -> int:
        self._made.append(vni)
        return (await self._session.call(tunnel(vni))).sw_if_index

    async def remove(self, vni: int) -> None:
        self._made.remove(vni)
        await self._session.call(tunnel(vni, is_add=False))

    async def clear(self) -> None:
        for vni in list(self._made):
            await self.remove(vni)


@pytest.fixture
async def tunnels(session: VppSession) -> Any:
    made = Tunnels(session)
    yield made
    await made.clear()


async def refusal(session: VppSession, request: Any) -> str:
    with pytest.raises(VppError) as caught:
        await session.call(request)
    return caught.value.name


async def test_version_and_process_are_known_after_connect(session: VppSession) -> None:
    assert session.version.startswith("26.06")
    assert session.vpp_pid > 0
    assert session.epoch == 1


async def test_two_hundred_messages_in_one_turn_are_answered_in_order(session: VppSession) -> None:
    before = session.counters.batches
    calls = [session.call(core.ControlPing()) for _ in range(200)]
    replies = await asyncio.gather(*calls)
    assert len(replies) == 200
    assert session.counters.batches == before + 1


async def test_a_dump_lists_what_was_made(session: VppSession, tunnels: Tunnels) -> None:
    index = await tunnels.make(501)
    [found] = [each for each in await session.dump(vxlan.VxlanDump()) if each.vni == 501]
    assert (found.sw_if_index, found.src_address, found.dst_port) == (index, V4, 4790)
    names = {
        each.sw_if_index: each.interface_dev_type for each in await session.dump(interface.InterfaceDump())
    }
    assert names[index] == "VXLAN"
    assert names[0] == "local"


async def test_dumps_and_calls_of_one_turn_do_not_mix(session: VppSession, tunnels: Tunnels) -> None:
    index = await tunnels.make(502)
    one, made, other = await asyncio.gather(
        session.dump(vxlan.VxlanDump()),
        session.call(tunnel(503)),
        session.dump(vxlan.VxlanDump()),
    )
    assert {each.vni for each in one} == {502}
    assert {each.vni for each in other} == {502, 503}
    assert isinstance(made, MadeInterface)
    assert made.sw_if_index != index
    await session.call(tunnel(503, is_add=False))


async def test_errors_carry_the_message_and_the_name(session: VppSession, tunnels: Tunnels) -> None:
    await tunnels.make(504)
    with pytest.raises(VppError, match="vxlan_add_del_tunnel_v3: TUNNEL_EXIST") as caught:
        await session.call(tunnel(504))
    assert caught.value.code is Code.ALREADY_EXISTS
    missing = interface.InterfaceFlags(sw_if_index=9999, flags=1)
    assert await refusal(session, missing) == "INVALID_SW_IF_INDEX"
    assert await refusal(session, tunnel(505, is_add=False)) == "NO_SUCH_ENTRY"


async def test_an_error_in_a_batch_concerns_its_own_call_only(session: VppSession) -> None:
    outcomes = await asyncio.gather(
        session.call(core.ControlPing()),
        session.call(interface.InterfaceFlags(sw_if_index=9999, flags=1)),
        session.call(core.ControlPing()),
        return_exceptions=True,
    )
    assert [isinstance(outcome, VppError) for outcome in outcomes] == [False, True, False]


async def test_af_packet_names_what_is_wrong(session: VppSession, target: Target) -> None:
    if target.fake is not None:
        target.fake.model.links = set()
    create = af_packet.AfPacketCreate(
        mode=af_packet.MODE_ETHERNET,
        hw_addr=bytes(6),
        use_random_hw_addr=True,
        host_if_name="nsm-none",
        rx_frame_size=2048,
        tx_frame_size=2048,
        rx_frames_per_block=64,
        tx_frames_per_block=64,
        flags=af_packet.VERSION_2,
    )
    assert await refusal(session, create) == "INVALID_INTERFACE"
    assert await refusal(session, af_packet.AfPacketDelete(host_if_name="nsm-none")) == "SYSCALL_ERROR_1"
    assert await session.dump(af_packet.AfPacketDump()) == []


async def test_a_tag_is_kept_and_goes_with_its_interface(session: VppSession, tunnels: Tunnels) -> None:
    index = await tunnels.make(506)
    tag = "nsm1:" + "a" * 58
    await session.call(interface.InterfaceTag(is_add=True, sw_if_index=index, tag=tag))
    [found] = await session.dump(interface.InterfaceDump(sw_if_index=index))
    assert found.tag == tag
    await tunnels.remove(506)
    again = await tunnels.make(507)
    [found] = await session.dump(interface.InterfaceDump(sw_if_index=again))
    assert (again, found.tag) == (index, "")


async def test_l2_cross_connects_go_with_their_interface(session: VppSession, tunnels: Tunnels) -> None:
    one, two = await tunnels.make(508), await tunnels.make(509)
    await session.call(l2.L2Xconnect(rx_sw_if_index=one, tx_sw_if_index=two, enable=True))
    assert await session.dump(l2.L2XconnectDump()) == [l2.L2XconnectDetails(one, two)]
    missing = l2.L2Xconnect(rx_sw_if_index=one, tx_sw_if_index=9999, enable=True)
    assert await refusal(session, missing) == "INVALID_SW_IF_INDEX"
    await tunnels.remove(508)
    assert await session.dump(l2.L2XconnectDump()) == []


async def test_an_l3_cross_connect_stays_listed_after_its_interface(
    session: VppSession, tunnels: Tunnels
) -> None:
    """The reason why entries are deleted for both families after every interface create."""
    one, two = await tunnels.make(510), await tunnels.make(511)
    paths = (ip.path_to(two, ip_address("10.0.0.9")),)
    await session.call(l3xc.L3xcUpdate(sw_if_index=one, is_ip6=False, paths=paths))
    await tunnels.remove(510)
    again = await tunnels.make(512)
    assert again == one
    [stale] = [each for each in await session.dump(l3xc.L3xcDump()) if each.sw_if_index == one]
    assert stale.paths[0].sw_if_index == two
    await session.call(
        l3xc.L3xcUpdate(sw_if_index=again, is_ip6=False, paths=paths)
    )  # accepted, without effect
    await session.call(l3xc.L3xcDelete(sw_if_index=again, is_ip6=False))
    assert await refusal(session, l3xc.L3xcDelete(sw_if_index=again, is_ip6=True)) == "INVALID_VALUE"
    assert await session.dump(l3xc.L3xcDump(sw_if_index=again)) == []


async def test_neighbours_and_addresses(session: VppSession, tunnels: Tunnels) -> None:
    index = await tunnels.make(513)
    address = interface.InterfaceAddress(
        sw_if_index=index, is_add=True, del_all=False, prefix=ip_interface("10.78.0.1/24")
    )
    await session.call(address)
    assert await refusal(session, address) == "ADDRESS_IN_USE"
    [found] = await session.dump(ip.AddressDump(sw_if_index=index, is_ipv6=False))
    assert found.prefix == ip_interface("10.78.0.1/24")
    mac = b"\x02\x00\x00\x00\x00\x07"
    neighbour = ip.Neighbour(
        is_add=True,
        sw_if_index=index,
        flags=ip.STATIC | ip.NO_FIB_ENTRY,
        mac_address=mac,
        ip_address=ip_address("10.78.0.9"),
    )
    await session.call(neighbour)
    [entry] = await session.dump(ip.NeighbourDump(sw_if_index=index, af=0))
    assert (entry.mac_address, entry.flags) == (mac, ip.STATIC | ip.NO_FIB_ENTRY)
    assert entry.age >= 0
    await session.call(
        interface.InterfaceAddress(
            sw_if_index=index, is_add=False, del_all=False, prefix=ip_interface("10.78.0.1/24")
        )
    )


async def test_wireguard_interfaces_and_peers(session: VppSession) -> None:
    made = await session.call(wireguard(1))
    [found] = await session.dump(wg.WireguardDump(sw_if_index=made.sw_if_index))
    assert (found.port, found.src_ip, found.private_key) == (53001, V4, bytes(32))
    peer = peer_of(made.sw_if_index, 1)
    index = (await session.call(peer)).peer_index
    assert await refusal(session, peer) == "ENTRY_ALREADY_EXISTS"
    [entry] = await session.dump(wg.PeerDump(peer_index=index))
    assert (entry.public_key, entry.allowed_ips) == (peer.public_key, peer.allowed_ips)
    await session.call(wg.PeerRemove(peer_index=index))
    await session.call(wg.WireguardDelete(sw_if_index=made.sw_if_index))
    assert "private" not in repr(peer)
    assert "preshared_key=" not in repr(entry)


async def test_a_peers_events_are_asked_for_in_the_turn_that_makes_it(session: VppSession) -> None:
    """By its interface: what VPP tells last is the peer's end, before it answers to the removal."""
    events: list[wg.PeerEvent] = []
    await session.subscribe(wg.PeerEvent, events.append)
    made = [await session.call(wireguard(number)) for number in (1, 2)]
    [unheard, heard] = [each.sw_if_index for each in made]
    other = (await session.call(peer_of(unheard, 1))).peer_index
    before = session.counters.batches
    reply = await session.create(
        peer_of(heard, 2),
        lambda reply: wg.PeerRemove(reply.peer_index),
        wg.WantPeerEvents(heard, ANY, 1, 1),
    )
    assert session.counters.batches == before + 1
    await session.call(wg.PeerRemove(other))
    assert events == []
    await session.call(wg.PeerRemove(reply.peer_index))
    assert [(each.peer_index, each.flags & wg.DEAD) for each in events] == [(reply.peer_index, wg.DEAD)]
    again = (await session.call(peer_of(heard, 3))).peer_index
    await session.call(wg.PeerRemove(again))
    assert len(events) == 1, "who has an index next is not told of"
    for index in (unheard, heard):
        await session.call(wg.WireguardDelete(index))


async def test_access_lists(session: VppSession, tunnels: Tunnels) -> None:
    index = await tunnels.make(514)
    anyone = ip_interface("0.0.0.0/0")
    rules = (
        acl.Rule(acl.PERMIT, anyone, ip_interface("10.77.0.1/32"), 17, 0, 65535, 4789, 4789),
        acl.Rule(acl.DENY, anyone, anyone),
    )
    made = await session.call(acl.AclReplace(acl_index=ANY, tag="nsm-test", rules=rules))
    await session.call(acl.InterfaceAcls(sw_if_index=index, n_input=1, acls=(made.acl_index,)))
    assert await refusal(session, acl.AclDelete(acl_index=made.acl_index)) == "ACL_IN_USE_INBOUND"
    [found] = await session.dump(acl.AclDump(acl_index=made.acl_index))
    assert (found.tag, found.rules) == ("nsm-test", rules)
    [bound] = await session.dump(acl.InterfaceAclsDump(sw_if_index=index))
    assert (bound.n_input, bound.acls) == (1, (made.acl_index,))
    await session.call(acl.InterfaceAcls(sw_if_index=index, n_input=0, acls=()))
    await session.call(acl.AclDelete(acl_index=made.acl_index))


async def test_interface_events_arrive_without_asking_again(session: VppSession, tunnels: Tunnels) -> None:
    events: asyncio.Queue[interface.InterfaceEvent] = asyncio.Queue()
    want = interface.WantInterfaceEvents(enable_disable=1, pid=1)
    await session.subscribe(interface.InterfaceEvent, events.put_nowait, want)
    index = await tunnels.make(515)
    await tunnels.remove(515)
    while not (event := await events.get()).deleted:
        pass
    assert event.sw_if_index == index


async def test_a_cancelled_caller_does_not_poison_the_session(session: VppSession) -> None:
    caller = asyncio.create_task(session.call(core.ControlPing()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    replies = await asyncio.gather(*[session.call(core.ControlPing()) for _ in range(20)])
    assert all(reply.retval == 0 for reply in replies)


@pytest.mark.parametrize("behind", [(), (core.ControlPing(),)], ids=["alone", "with-what-belongs-to-it"])
async def test_what_a_cancelled_caller_made_is_taken_back(
    session: VppSession, behind: tuple[core.ControlPing, ...]
) -> None:
    undone: list[MadeInterface] = []

    def undo(reply: MadeInterface) -> vxlan.VxlanTunnel:
        undone.append(reply)
        return tunnel(516, is_add=False)

    caller = asyncio.create_task(session.create(tunnel(516), undo, *behind))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await session.call(core.ControlPing())  # behind the create
    await session.call(core.ControlPing())  # behind the undo
    assert len(undone) == 1
    assert [each for each in await session.dump(vxlan.VxlanDump()) if each.vni == 516] == []


async def test_what_belongs_to_a_creation_leaves_with_it_and_takes_it_back_when_it_fails(
    session: VppSession, tunnels: Tunnels
) -> None:
    index = await tunnels.make(517)
    up = interface.InterfaceFlags(sw_if_index=index, flags=interface.ADMIN_UP)
    before = session.counters.batches
    made = await session.create(tunnel(518), lambda _: tunnel(518, is_add=False), up, core.ControlPing())
    assert session.counters.batches == before + 1
    assert {each.vni for each in await session.dump(vxlan.VxlanDump())} == {517, 518}
    await session.call(tunnel(518, is_add=False))
    missing = interface.InterfaceFlags(sw_if_index=9999, flags=interface.ADMIN_UP)
    with pytest.raises(VppError, match="sw_interface_set_flags: INVALID_SW_IF_INDEX"):
        await session.create(tunnel(518), lambda _: tunnel(518, is_add=False), up, missing)
    assert {each.vni for each in await session.dump(vxlan.VxlanDump())} == {517}
    with pytest.raises(VppError, match="vxlan_add_del_tunnel_v3: TUNNEL_EXIST"):
        await session.create(tunnel(517), lambda _: tunnel(517, is_add=False), missing)
    assert {each.sw_if_index for each in await session.dump(vxlan.VxlanDump())} == {index}
    assert made.sw_if_index != index


async def test_calls_of_one_turn_give_each_its_own_outcome(session: VppSession) -> None:
    before = session.counters.batches
    missing = interface.InterfaceFlags(sw_if_index=9999, flags=1)
    outcomes = await session.calls([core.ControlPing(), missing, core.ControlPing()])
    assert session.counters.batches == before + 1
    assert [getattr(each, "retval", None) for each in outcomes] == [0, -2, 0]
    assert isinstance(outcomes[1], VppError)


async def test_ring_operations_go_one_at_a_time_and_nothing_else_waits_for_them(session: VppSession) -> None:
    """VPP stands still during each: two in a row would cost other connections packets."""
    before = session.counters.batches
    remove = [af_packet.AfPacketDelete(host_if_name=f"nsm-none{number}") for number in range(3)]
    outcomes = await asyncio.gather(
        *[session.call(each) for each in remove], session.call(core.ControlPing()), return_exceptions=True
    )
    assert [isinstance(each, VppError) for each in outcomes] == [True, True, True, False]
    assert session.counters.batches == before + 3  # the first ring operation and the ping leave together


async def test_who_makes_a_ring_does_not_wait_for_those_that_are_removed(session: VppSession) -> None:
    ended: list[str] = []

    async def removal(number: int) -> None:
        with contextlib.suppress(VppError):
            await session.call(af_packet.AfPacketDelete(host_if_name=f"nsm-none{number}"))
        ended.append("removal")

    async def making() -> None:
        request = creation("nsm-none", "02:00:00:00:00:01", Ring())
        with contextlib.suppress(VppError):  # there is no such link; the fake knows of none
            await session.create(request, lambda _: af_packet.AfPacketDelete(host_if_name="nsm-none"))
        ended.append("making")

    await asyncio.gather(*[removal(number) for number in range(5)], making())
    assert ended == ["removal", "making", *["removal"] * 4]


async def test_something_is_entered_around_each_ring_operation(target: Target) -> None:
    entered: list[str] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        entered.append("in")
        yield
        entered.append("out")

    session = VppSession(target.path, around_rings=around)
    await session.connect()
    await session.calls([af_packet.AfPacketDelete(host_if_name="nsm-none"), core.ControlPing()])
    assert entered == ["in", "out"]
    await session.close()
