"""Items of a connection on VPP: known before anything is made, the same in every run, two levels deep."""

from dataclasses import replace
from typing import TypeVar

import pytest

from forwarder_vpp.dataplane.contract.intent import End, Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Item, Key
from forwarder_vpp.dataplane.netlink.link_config import LinkConfig
from forwarder_vpp.dataplane.netlink.veth import Veth
from forwarder_vpp.dataplane.vpp.messages.acl import PERMIT
from forwarder_vpp.dataplane.vpp.objects.acl import Acl, AclBinding
from forwarder_vpp.dataplane.vpp.objects.address import Address
from forwarder_vpp.dataplane.vpp.objects.af_packet import AfPacket
from forwarder_vpp.dataplane.vpp.objects.l3_xconnect import L3Xconnect
from forwarder_vpp.dataplane.vpp.objects.neighbour import Neighbour
from forwarder_vpp.dataplane.vpp.objects.port import Port
from forwarder_vpp.dataplane.vpp.objects.tags import owner_of, role_of, tag_of
from forwarder_vpp.dataplane.vpp.objects.tap import Tap
from forwarder_vpp.desired.vpp import NodeFacts, UplinkFacts, connection_items, uplink_items
from nsm.model.context import IpNeighbor, Route
from nsm.model.mechanism import ETHERNET, IP

ItemT = TypeVar("ItemT")

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
VXLAN = VxlanEnd("10.0.0.1", "10.0.0.2", 5)
WIREGUARD = WireguardEnd("10.0.0.1", "10.0.0.2", 51901, 51902, KEY, KEY)


def kernel(number: int) -> KernelEnd:
    return KernelEnd(
        NetnsId(4, number, number),
        "nsm-1",
        addresses=(f"10.9.0.{number}/32",),
        routes=(Route(f"10.9.0.{3 - number}/32"), Route("10.0.0.0/8"), Route("10.7.0.0/16", "10.9.0.200")),
    )


def items(client: End, endpoint: End, payload: str, facts: NodeFacts | None = None) -> dict[Key, Item]:
    intent = Intent("id", "nsm1-owner", payload, 1400, client, endpoint)
    made = connection_items(intent, facts or NodeFacts())
    assert len({each.key for each in made}) == len(made)
    return {each.key: each for each in made}


def of(found: dict[Key, Item], kind: type[ItemT]) -> list[ItemT]:
    return [each for each in found.values() if isinstance(each, kind)]


CASES = [
    (kernel(1), kernel(2), IP),
    (kernel(1), kernel(2), ETHERNET),
    (kernel(1), WIREGUARD, IP),
    (WIREGUARD, kernel(2), IP),
    (kernel(1), VXLAN, ETHERNET),
]


@pytest.mark.parametrize(("client", "endpoint", "payload"), CASES)
def test_every_requirement_is_an_item_of_the_connection(client: End, endpoint: End, payload: str) -> None:
    found = items(client, endpoint, payload)
    assert all(key in found for each in found.values() for key in each.requires)
    assert items(client, endpoint, payload) == found


@pytest.mark.parametrize(("client", "endpoint", "payload"), CASES)
def test_in_vpp_there_are_interfaces_and_what_hangs_on_them(client: End, endpoint: End, payload: str) -> None:
    """Two levels, so two round trips; the link and the port below them are the kernel's."""
    found = items(client, endpoint, payload)
    kernels = {"veth", "link_config", "vpp_udp_port"}
    interfaces = {"vpp_af_packet", "vpp_vxlan", "vpp_wireguard"}
    for key, each in found.items():
        if key.kind in kernels:
            continue
        below = {required.kind for required in each.requires}
        assert below <= (kernels if key.kind in interfaces else interfaces)


@pytest.mark.parametrize(("client", "endpoint", "payload"), CASES)
def test_ports_come_last_with_a_tag_for_each_end(client: End, endpoint: End, payload: str) -> None:
    found = list(items(client, endpoint, payload).values())
    last = found[-2:]
    assert all(isinstance(each, Port) for each in last)
    assert [each.tag for each in last if isinstance(each, Port)] == ["nsm1-owner/c", "nsm1-owner/e"]


def test_vpps_objects_do_not_depend_on_the_workloads_addresses() -> None:
    before = items(kernel(1), kernel(2), IP)
    after = items(replace(kernel(1), addresses=("10.9.0.99/32",)), kernel(2), IP)
    changed = {key.kind for key in before | after if before.get(key) != after.get(key)}
    assert changed == {"link_config"}


def test_the_kernels_end_of_the_veth_has_another_mac_than_vpp() -> None:
    found = items(kernel(1), kernel(2), IP)
    for veth in of(found, Veth):
        [port] = [each for each in of(found, AfPacket) if each.link == veth.far.name]
        assert len({veth.near.mac, veth.far.mac, port.mac}) == 3
        assert len(port.link) <= 15
        hops = [each.mac for each in of(found, Neighbour) if each.interface == port.key]
        assert hops == [veth.near.mac] * 2


def test_the_workload_gets_a_neighbour_for_whatever_it_may_ask_for() -> None:
    found = items(kernel(1), kernel(2), IP)
    [config] = [each for each in of(found, LinkConfig) if each.netns == NetnsId(4, 1, 1)]
    [port] = [each for each in of(found, Port) if role_of(each.tag) == "c"]
    [interface] = [each for each in of(found, AfPacket) if each.key == port.interface]
    assert config.neighbours == (
        IpNeighbor("10.9.0.2", interface.mac),
        IpNeighbor("10.9.0.200", interface.mac),
    )
    given = replace(kernel(1), neighbours=(IpNeighbor("10.9.0.2", "02:00:00:00:00:99"),))
    [config] = [
        each for each in of(items(given, kernel(2), IP), LinkConfig) if each.netns == NetnsId(4, 1, 1)
    ]
    assert config.neighbours[0].hardware_address == "02:00:00:00:00:99"


def test_ethernet_payload_leaves_neighbours_to_the_workloads() -> None:
    found = items(kernel(1), kernel(2), ETHERNET)
    assert not of(found, Neighbour)
    assert all(each.neighbours == () for each in of(found, LinkConfig))
    assert not of(found, L3Xconnect)


def test_only_tunnels_cut_segments_in_software() -> None:
    found = items(kernel(1), WIREGUARD, IP)
    assert {each.interface.kind: each.gso for each in of(found, Port)} == {
        "vpp_af_packet": False,
        "vpp_wireguard": True,
    }


def test_taps_need_no_veth_and_carry_their_tag() -> None:
    found = items(kernel(1), kernel(2), IP, NodeFacts(taps=True))
    assert not of(found, Veth)
    assert {each.tag for each in of(found, Tap)} == {"nsm1-owner/c", "nsm1-owner/e"}
    assert all(config.link.kind == "vpp_tap" for config in of(found, LinkConfig))


@pytest.mark.parametrize(
    ("endpoint", "payload", "large"),
    [(kernel(2), IP, True), (VXLAN, ETHERNET, True), (WIREGUARD, IP, False)],
    ids=["local", "vxlan", "wireguard"],
)
def test_a_tap_towards_wireguard_leaves_nothing_to_vpp(endpoint: End, payload: str, large: bool) -> None:
    found = items(kernel(1), endpoint, payload, NodeFacts(taps=True))
    assert {each.large_segments for each in of(found, Tap)} == {large}


def test_a_private_key_is_in_no_key_and_no_repr() -> None:
    secret = "cHJpdmF0ZS1wcml2YXRlLXByaXZhdGUtcHJpdmF0ZS0="
    found = items(kernel(1), replace(WIREGUARD, private_key=secret), IP)
    assert secret not in repr(found)


def test_the_uplink_is_silent_before_its_access_lists_are_bound() -> None:
    facts = UplinkFacts(
        "eth0",
        "02:00:00:00:00:01",
        1500,
        "10.0.0.1",
        ("10.0.0.1/24", "10.0.1.1/24"),
        routes=(("0.0.0.0/0", "10.0.0.254"),),
        ports=((4789, 4789), (51820, 52000)),
    )
    found = {each.key: each for each in uplink_items(facts)}
    [binding] = of(found, AclBinding)
    waiting: list[Item] = [*of(found, Address), *of(found, Port)]
    assert len(waiting) == 3
    assert all(binding.key in each.requires for each in waiting)
    inside, outside = (found[key] for key in (*binding.inputs, *binding.outputs))
    assert isinstance(inside, Acl)
    assert [(rule.proto, rule.dstport_or_icmpcode_first) for rule in inside.rules] == [
        (17, 4789),
        (17, 51820),
    ]
    assert {str(rule.dst_prefix) for rule in inside.rules} == {"10.0.0.1/32"}
    assert isinstance(outside, Acl)
    assert [(rule.is_permit, rule.proto, str(rule.src_prefix)) for rule in outside.rules] == [
        (PERMIT, 17, "10.0.0.1/32")
    ]


def test_an_ipv6_uplink_may_look_for_its_neighbours() -> None:
    facts = UplinkFacts("eth0", "02:00:00:00:00:01", 1500, "2001:db8::1", ("2001:db8::1/64",))
    found = {each.key: each for each in uplink_items(facts)}
    for rules in (each.rules for each in of(found, Acl)):
        assert {rule.srcport_or_icmptype_first for rule in rules if rule.proto == 58} == {135, 136}


def test_tags_tell_owner_and_role_and_refuse_what_vpp_would_cut() -> None:
    tag = tag_of("nsm1-abc", "c")
    assert (owner_of(tag), role_of(tag)) == ("nsm1-abc", "c")
    assert (owner_of("someone/c"), role_of("someone/c"), owner_of("")) == ("", "", "")
    with pytest.raises(ValueError, match="63"):
        tag_of("nsm" + "x" * 60, "c")
