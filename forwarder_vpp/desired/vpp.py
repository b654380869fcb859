"""From the intent of a connection to the items that carry it on VPP, and from the node's facts to its own.

Everything is known before anything is made: names and MACs are derived from the owner, next hops are the same
for every interface, and the workload gets its neighbours as static entries. So the interfaces of a connection
are one batch and all that hangs on them is the next one, ports (admin up) last.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from forwarder_vpp.dataplane.contract.intent import End, Intent, KernelEnd, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Item, Key
from forwarder_vpp.dataplane.netlink.access import NODE
from forwarder_vpp.dataplane.netlink.link_config import link_config
from forwarder_vpp.dataplane.netlink.tags import derived_mac
from forwarder_vpp.dataplane.netlink.veth import Veth, VethEnd
from forwarder_vpp.dataplane.vpp.messages import acl as api
from forwarder_vpp.dataplane.vpp.objects.acl import Acl, AclBinding
from forwarder_vpp.dataplane.vpp.objects.address import Address
from forwarder_vpp.dataplane.vpp.objects.af_packet import AfPacket, Ring, filled, ring_of_packets
from forwarder_vpp.dataplane.vpp.objects.l2_xconnect import L2Xconnect
from forwarder_vpp.dataplane.vpp.objects.l3_xconnect import NEXT_HOP4, NEXT_HOP6, L3Xconnect
from forwarder_vpp.dataplane.vpp.objects.neighbour import Neighbour
from forwarder_vpp.dataplane.vpp.objects.port import Port
from forwarder_vpp.dataplane.vpp.objects.route import Route
from forwarder_vpp.dataplane.vpp.objects.tags import CLIENT, ENDPOINT, OWNED, UPLINK, tag_of
from forwarder_vpp.dataplane.vpp.objects.tap import Tap
from forwarder_vpp.dataplane.vpp.objects.udp_port import UdpPort
from forwarder_vpp.dataplane.vpp.objects.vxlan import VxlanTunnel
from forwarder_vpp.dataplane.vpp.objects.wireguard import Wireguard
from forwarder_vpp.dataplane.vpp.objects.wireguard_peer import WireguardPeer
from nsm.model.addresses import ip_interface, ip_network
from nsm.model.context import IpNeighbor
from nsm.model.mechanism import IP

DEFAULT_RING = Ring()
"""Between two workloads: at 1 kHz it takes in what arrives while VPP makes another ring (35 to 60 ms)."""

EXPEDITED_RING = Ring(frames=30)
"""The same where VPP stands still for some milliseconds only: 2 MiB instead of 4."""

UPLINK_RING = filled(10240, 16 << 20)
"""One for the node, so a large one; it holds packets of any MTU up to 9000 bytes, for that may change."""

NODE_OWNER = f"{OWNED}-node"
"""The owner of what belongs to the node, in tags and access lists."""

VPP_MAC = derived_mac(OWNED, "vpp")
"""VPP's address towards every workload: each link is between those two alone, and a link made beforehand has it
already (setting another one later would set the kernel's end to the same)."""

_UDP = 17
_ICMP6 = 58
_ND = (135, 136)  # neighbour solicitation and advertisement
_ANY_PORT = (0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the items of a connection depend on besides its intent.

    ``taps``: /dev/vhost-net exists. ``holds_ports``: the kernel sees tunnel packets too and must not answer.
    """

    ring: Ring = DEFAULT_RING
    taps: bool = False
    holds_ports: bool = True


@dataclass(frozen=True, slots=True)
class UplinkFacts:
    """The NIC as the kernel has it: ``addresses`` with length, ``routes`` (prefix, next hop or empty),
    ``neighbours`` (address, MAC); ``ports`` are the ranges tunnels may arrive at."""  # noqa: D205, D209

    link: str
    mac: str
    mtu: int
    tunnel_ip: str
    addresses: tuple[str, ...]
    routes: tuple[tuple[str, str], ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()
    ports: tuple[tuple[int, int], ...] = ((4789, 4789), (51820, 51820))
    ring: Ring = UPLINK_RING


def interface_key(intent: Intent, end: End, role: str, facts: NodeFacts) -> Key:
    """The key of VPP's interface of one end."""
    return _interface(intent, end, role, facts).key


def connection_items(intent: Intent, facts: NodeFacts) -> tuple[Item, ...]:
    """Every item of one connection."""
    ends = ((intent.client, CLIENT, intent.endpoint), (intent.endpoint, ENDPOINT, intent.client))
    items: list[Item] = []
    for end, role, other in ends:
        items += _end_items(intent, end, role, other, facts)
    one, other_key = (interface_key(intent, end, role, facts) for end, role, _ in ends)
    items.append(L3Xconnect(one, other_key) if intent.payload == IP else L2Xconnect(one, other_key))
    for end, role, _ in ends:
        key = interface_key(intent, end, role, facts)
        gso = not isinstance(end, KernelEnd)  # a tunnel carries packets, never segments of 64 KiB
        items.append(Port(key, tag_of(intent.owner, role), intent.mtu, gso))
    return tuple(items)


def _end_items(intent: Intent, end: End, role: str, other: End, facts: NodeFacts) -> Iterator[Item]:
    interface = _interface(intent, end, role, facts)
    if isinstance(end, KernelEnd):
        if not isinstance(interface, Tap):
            yield _veth(intent, end, role)
        yield interface
        link = interface.key if isinstance(interface, Tap) else _veth(intent, end, role).key
        yield link_config(intent.owner, _answered(intent, end, other), link, intent.mtu)
        if intent.payload == IP:
            mac = _workload_mac(intent, end, role)
            yield Neighbour(interface.key, str(NEXT_HOP4), mac)
            yield Neighbour(interface.key, str(NEXT_HOP6), mac)
        return
    if facts.holds_ports:
        yield UdpPort(end.local, end.local_port)
    yield interface
    if isinstance(end, WireguardEnd) and end.remote_public_key:
        yield WireguardPeer(interface.key, end.remote_public_key, end.remote, end.remote_port)


def _interface(
    intent: Intent, end: End, role: str, facts: NodeFacts
) -> AfPacket | Tap | VxlanTunnel | Wireguard:
    match end:
        case KernelEnd() if facts.taps:
            return _tap(intent, end, role)
        case KernelEnd():
            veth = _veth(intent, end, role)
            ring = facts.ring if _is_local(intent) else ring_of_packets(intent.mtu)
            return AfPacket(veth.far.name, VPP_MAC, ring, veth.key, tag_of(intent.owner, role))
        case VxlanEnd():
            needs = (UdpPort(end.local, end.local_port).key,) if facts.holds_ports else ()
            return VxlanTunnel(end.local, end.remote, end.vni, end.local_port, end.remote_port, needs)
        case WireguardEnd():
            needs = (UdpPort(end.local, end.local_port).key,) if facts.holds_ports else ()
            return Wireguard(end.private_key, end.local, end.local_port, needs)


def _tap(intent: Intent, end: KernelEnd, role: str) -> Tap:
    """No offload towards WireGuard: VPP 26.06 writes checksums into what it has encrypted (docs/vpp-notes.md)."""
    mac, tag = _workload_mac(intent, end, role), tag_of(intent.owner, role)
    whole = not any(isinstance(each, WireguardEnd) for each in (intent.client, intent.endpoint))
    return Tap(end.netns, end.interface, VPP_MAC, mac, intent.mtu, tag, large_segments=whole)


def _veth(intent: Intent, end: KernelEnd, role: str) -> Veth:
    """The node's end has another MAC than VPP uses on it: the kernel then takes no packet for its own."""
    owner = tag_of(intent.owner, role)
    name = "nv" + hashlib.sha256(owner.encode()).hexdigest()[:12]
    near = VethEnd(end.netns, end.interface, _workload_mac(intent, end, role))
    far = VethEnd(NODE, name, derived_mac(owner, "node"))
    return Veth(owner, near, far, intent.mtu, large_segments=_is_local(intent))


def _is_local(intent: Intent) -> bool:
    """Large segments only between two workloads.

    Towards a tunnel VPP 26.06 would have to cut them and takes those af_packet received over IPv4 for IPv6
    (docs/vpp-notes.md), so the workload must not send any.
    """
    return isinstance(intent.client, KernelEnd) and isinstance(intent.endpoint, KernelEnd)


def _workload_mac(intent: Intent, end: KernelEnd, role: str) -> str:
    return end.mac or derived_mac(tag_of(intent.owner, role), "workload")


def _answered(intent: Intent, end: KernelEnd, other: End) -> KernelEnd:
    """``end`` with static neighbours for whatever it may ask for: VPP answers no ARP on these interfaces."""
    if intent.payload != IP:
        return end
    known = {each.ip for each in end.neighbours}
    asked = dict.fromkeys(_asked(end, other))
    added = tuple(IpNeighbor(ip, VPP_MAC) for ip in asked if ip not in known)
    return replace(end, neighbours=end.neighbours + added)


def _asked(end: KernelEnd, other: End) -> Iterator[str]:
    """The far side's addresses, next hops, and single addresses that are on-link."""
    if isinstance(other, KernelEnd):
        yield from (str(ip_interface(address).ip) for address in other.addresses)
    for route in (*end.routes, *(route for rule in end.rules for route in rule.routes)):
        if route.next_hop:
            yield route.next_hop
        elif route.prefix:
            network = ip_network(route.prefix, strict=False)
            if network.prefixlen == network.max_prefixlen:
                yield str(network.network_address)


def uplink_items(facts: UplinkFacts) -> tuple[Item, ...]:
    """The node's own: the NIC beside the kernel, silent but for tunnels.

    Order matters: neither an address nor admin up before the access lists are bound.
    """
    nic = AfPacket(facts.link, facts.mac, facts.ring)
    inside, outside = uplink_acls(facts)
    binding = AclBinding(nic.key, (inside.key,), (outside.key,))
    after = (binding.key,)
    items: list[Item] = [nic, inside, outside, binding]
    items += [Address(nic.key, address, after) for address in facts.addresses]
    items += [Route(prefix, nic.key, hop, after) for prefix, hop in facts.routes]
    items += [Neighbour(nic.key, ip, mac, static=False) for ip, mac in facts.neighbours]
    items.append(Port(nic.key, tag_of(NODE_OWNER, UPLINK), facts.mtu, after=after))
    return tuple(items)


def uplink_acls(facts: UplinkFacts) -> tuple[Acl, Acl]:
    """What the uplink lets in and out; everything else is the kernel's, which has its own copy."""
    own = ip_interface(facts.tunnel_ip)
    everyone = ip_interface("0.0.0.0/0" if own.version == 4 else "::/0")
    inside = [
        api.Rule(api.PERMIT, everyone, own, _UDP, *_ANY_PORT, first, last) for first, last in facts.ports
    ]
    outside = [api.Rule(api.PERMIT, own, everyone, _UDP, *_ANY_PORT, *_ANY_PORT)]
    if own.version == 6:
        nd = [api.Rule(api.PERMIT, everyone, everyone, _ICMP6, kind, kind, *_ANY_PORT) for kind in _ND]
        inside += nd
        outside += nd
    name = f"{NODE_OWNER}/{UPLINK}"
    return Acl(f"{name}-in", tuple(inside)), Acl(f"{name}-out", tuple(outside))
