"""What a VPP would hold: interfaces by index, and everything that hangs on them."""

from dataclasses import dataclass, field

from forwarder_vpp.dataplane.vpp.fields import Ip, Network
from forwarder_vpp.dataplane.vpp.messages.acl import Rule  # dataclass fields below
from forwarder_vpp.dataplane.vpp.messages.ip import FibPath
from forwarder_vpp.dataplane.vpp.messages.vxlan import VxlanTunnel
from forwarder_vpp.dataplane.vpp.messages.wireguard import PeerAdd, WireguardCreate

ETHERNET_MTU = 9000


class Refused(Exception):  # noqa: N818  # an answer, not a fault of the fake
    """The message is answered with this (negative) return value."""

    def __init__(self, retval: int) -> None:
        super().__init__(retval)
        self.retval = retval


@dataclass(slots=True)
class Interface:
    name: str
    kind: str
    mac: bytes = bytes(6)
    flags: int = 0
    mtu: tuple[int, int, int, int] = (0, 0, 0, 0)
    tag: str = ""
    facts: object = None
    gso: bool = False
    ip4: bool = False
    ip6: bool = False
    addresses: list[Network] = field(default_factory=list)
    acls: tuple[int, tuple[int, ...]] = (0, ())
    rises: int = 0


@dataclass(slots=True)
class CrossConnect:
    """``listed`` is what the dump shows, ``active`` what packets meet (``None`` = the feature is off)."""

    listed: tuple[FibPath, ...]
    active: tuple[FibPath, ...] | None


class Model:
    """State of one VPP process. ``links`` = kernel links that exist (``None`` = every link does).

    A WireGuard interface begins a handshake whenever it rises; ``handshakes_in_vain`` of each come to nothing.
    """

    def __init__(self) -> None:
        self.links: set[str] | None = None
        self.has_vhost = True
        self.interfaces: dict[int, Interface] = {0: Interface("local0", "local")}
        self._free: list[int] = []
        self.l2: dict[int, int] = {}
        self.l3: dict[tuple[int, bool], CrossConnect] = {}
        self.neighbours: dict[tuple[int, Ip], tuple[int, bytes]] = {}
        self.routes: dict[Network, tuple[FibPath, ...]] = {}
        self.acls: dict[int, tuple[str, tuple[Rule, ...]]] = {}
        self.peers: dict[int, PeerAdd] = {}
        self.made = 0
        self.handshakes_in_vain = 0

    def interface(self, index: int) -> Interface:
        found = self.interfaces.get(index)
        if found is None:
            raise Refused(-2)
        return found

    def add(self, interface: Interface) -> int:
        """Indexes are used again, the one freed last first."""
        index = self._free.pop() if self._free else max(self.interfaces) + 1
        self.made += 1
        if interface.kind != "Wireguard Tunnel":
            interface.mac = b"\x02\xfe" + self.made.to_bytes(4, "big")
            interface.mtu = (ETHERNET_MTU, 0, 0, 0)
        self.interfaces[index] = interface
        return index

    def remove(self, index: int) -> None:
        """Neighbours and L2 go with the interface; L3 cross-connects stay listed, switched off."""
        del self.interfaces[index]
        self._free.append(index)
        self.neighbours = {key: value for key, value in self.neighbours.items() if key[0] != index}
        self.l2 = {rx: tx for rx, tx in self.l2.items() if index not in (rx, tx)}
        for (rx, _), entry in self.l3.items():
            if rx == index:
                entry.active = None

    def of_kind(self, kind: str) -> dict[int, Interface]:
        return {index: found for index, found in self.interfaces.items() if found.kind == kind}

    def vxlan(self, wanted: VxlanTunnel) -> int | None:
        """Tunnels are known by addresses, ports and VNI."""
        for index, found in self.of_kind("VXLAN").items():
            have = found.facts
            assert isinstance(have, VxlanTunnel)
            if vxlan_key(have) == vxlan_key(wanted):
                return index
        return None

    def wireguard(self, index: int) -> WireguardCreate:
        facts = self.interface(index).facts
        if not isinstance(facts, WireguardCreate):
            raise Refused(-7)
        return facts

    def path_of(self, rx: int, *, is_ip6: bool = False) -> tuple[int, bytes] | None:
        """Where a packet received on ``rx`` goes: interface and next hop; ``None`` = it is dropped."""
        if rx in self.l2:
            return (self.l2[rx], b"")
        entry = self.l3.get((rx, is_ip6))
        if entry is None or not entry.active:
            return None
        return (entry.active[0].sw_if_index, entry.active[0].next_hop)


def vxlan_key(tunnel: VxlanTunnel) -> tuple[Ip, Ip, int, int, int]:
    return (tunnel.src_address, tunnel.dst_address, tunnel.src_port, tunnel.dst_port, tunnel.vni)
