"""Addresses, routes, neighbours and rules as facts that compare, and the messages that add and remove them.

All of ours carry ``PROTOCOL`` in the field the kernel has for that, which is how they are told from foreign ones.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from socket import AF_INET, AF_INET6
from typing import Final

from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.wire import Message
from nsm.model.context import IpNeighbor, PolicyRoute, Route

PROTOCOL: Final = 78
"""Who made it (rtm_protocol, IFA_PROTO, NDA_PROTOCOL, FRA_PROTOCOL): a number no other program has registered."""

FIRST_PRIORITY: Final = 0x4E00
NDA_IFINDEX, NDA_PROTOCOL = 8, 12
FAMILIES: Final = (int(AF_INET), int(AF_INET6))

_IFADDR: Final = struct.Struct("=BBBBI")
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR: Final = struct.Struct("=BxHiHBB")
_RULE: Final = struct.Struct("=BBBBBBBBI")
_PORTS: Final = struct.Struct("=HH")
_MAIN_IN_HEADER: Final = 0
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface."""

    family: int
    ip: bytes
    length: int
    is_ours: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return f"{ip_address(self.ip)}/{self.length}"

    def message(self, kind: int, index: int) -> Message:
        """Add (RTM_NEWADDR) or remove (RTM_DELADDR) it."""
        flags = wire.IFA_F_PERMANENT | (wire.IFA_F_NODAD if self.family == AF_INET6 else 0)
        attributes = [
            (wire.IFA_LOCAL, self.ip),
            (wire.IFA_ADDRESS, self.ip),
            (wire.IFA_FLAGS, wire.u32(flags)),
            (wire.IFA_PROTO, wire.u8(PROTOCOL)),
        ]
        body = _IFADDR.pack(self.family, self.length, flags, 0, index) + wire.pack(attributes)
        return Message(kind, body, wire.NLM_F_CREATE | wire.NLM_F_REPLACE if kind == wire.RTM_NEWADDR else 0)


@dataclass(frozen=True, slots=True)
class RouteFact:
    """A unicast route over one interface; no gateway = on-link."""

    family: int
    destination: bytes
    length: int
    gateway: bytes = b""
    table: int = wire.RT_TABLE_MAIN
    is_ours: bool = field(default=True, compare=False)
    index: int = field(default=0, compare=False)

    def __str__(self) -> str:
        via = f" via {ip_address(self.gateway)}" if self.gateway else ""
        return f"{ip_address(self.destination)}/{self.length}{via}"

    def message(self, kind: int, index: int, *, replace: bool = False) -> Message:
        """Add (RTM_NEWROUTE; taking another's place only with ``replace``) or remove (RTM_DELROUTE) it."""
        scope, flags = (
            (wire.RT_SCOPE_UNIVERSE, wire.RTNH_F_ONLINK) if self.gateway else (wire.RT_SCOPE_LINK, 0)
        )
        if self.family == AF_INET6:
            scope = wire.RT_SCOPE_UNIVERSE
        attributes = [
            (wire.RTA_DST, self.destination),
            (wire.RTA_OIF, wire.u32(index)),
            (wire.RTA_TABLE, wire.u32(self.table)),
        ]
        if self.gateway:
            attributes.append((wire.RTA_GATEWAY, self.gateway))
        head = (self.family, self.length, 0, 0, _MAIN_IN_HEADER, PROTOCOL, scope, wire.RTN_UNICAST, flags)
        how = wire.NLM_F_CREATE | (wire.NLM_F_REPLACE if replace else wire.NLM_F_EXCL)
        return Message(
            kind, _ROUTE.pack(*head) + wire.pack(attributes), how if kind == wire.RTM_NEWROUTE else 0
        )

    @property
    def slot(self) -> tuple[int, bytes, int, int]:
        """What two routes of the same metric cannot share."""
        return self.family, self.destination, self.length, self.table


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour."""

    family: int
    ip: bytes
    mac: bytes
    is_ours: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        return f"{ip_address(self.ip)} at {self.mac.hex(':')}"

    def message(self, kind: int, index: int) -> Message:
        """Add (RTM_NEWNEIGH) or remove (RTM_DELNEIGH) it."""
        is_new = kind == wire.RTM_NEWNEIGH
        attributes = [(wire.NDA_DST, self.ip)]
        if is_new:
            attributes += [(wire.NDA_LLADDR, self.mac), (NDA_PROTOCOL, wire.u8(PROTOCOL))]
        body = _NEIGHBOUR.pack(self.family, 0, index, wire.NUD_PERMANENT, 0, 0) + wire.pack(attributes)
        return Message(kind, body, wire.NLM_F_CREATE | wire.NLM_F_REPLACE if is_new else 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy rule that leads into ``table``; port ranges are inclusive, (0, 0) = any."""

    family: int
    source: bytes
    source_length: int
    protocol: int
    source_ports: Range
    destination_ports: Range
    table: int
    priority: int
    is_ours: bool = field(default=True, compare=False)

    def __str__(self) -> str:
        origin = f"{ip_address(self.source)}/{self.source_length}" if self.source_length else "all"
        return f"rule from {origin} to table {self.table}"

    def message(self, kind: int) -> Message:
        """Add (RTM_NEWRULE) or remove (RTM_DELRULE) it."""
        attributes = [
            (wire.FRA_TABLE, wire.u32(self.table)),
            (wire.FRA_PRIORITY, wire.u32(self.priority)),
            (wire.FRA_PROTOCOL, wire.u8(PROTOCOL)),
        ]
        if self.source_length:
            attributes.append((wire.FRA_SRC, self.source))
        if self.protocol:
            attributes.append((wire.FRA_IP_PROTO, wire.u8(self.protocol)))
        for which, ports in (
            (wire.FRA_SPORT_RANGE, self.source_ports),
            (wire.FRA_DPORT_RANGE, self.destination_ports),
        ):
            if ports != (0, 0):
                attributes.append((which, _PORTS.pack(*ports)))
        head = (self.family, 0, self.source_length, 0, _MAIN_IN_HEADER, 0, 0, wire.FR_ACT_TO_TBL, 0)
        how = wire.NLM_F_CREATE | wire.NLM_F_EXCL if kind == wire.RTM_NEWRULE else 0
        return Message(kind, _RULE.pack(*head) + wire.pack(attributes), how)


def address(text: str) -> Address:
    """From ``address/length``; ValueError if it is none."""
    parsed = ip_interface(text)
    return Address(_family(parsed.version), parsed.packed, parsed.network.prefixlen)


def route(wanted: Route, table: int = wire.RT_TABLE_MAIN) -> RouteFact:
    """From the model's route; ValueError if it is none, or its next hop is of the other family."""
    prefix = ip_network(wanted.prefix, strict=False)
    gateway = b""
    if wanted.next_hop:
        hop = ip_address(wanted.next_hop)
        if hop.version != prefix.version:
            raise ValueError(f"next hop {hop} of {prefix} is of the other family")
        gateway = hop.packed
    return RouteFact(_family(prefix.version), prefix.network_address.packed, prefix.prefixlen, gateway, table)


def neighbour(wanted: IpNeighbor) -> Neighbour:
    """From the model's neighbour; ValueError if it is none."""
    ip = ip_address(wanted.ip)
    return Neighbour(_family(ip.version), ip.packed, wire.mac(wanted.hardware_address))


def rules(wanted: PolicyRoute, table: int, priority: int) -> list[Rule]:
    """From the model's policy: one rule, or one for each family if neither source nor routes name one."""
    if wanted.source:
        source = ip_network(wanted.source, strict=False)
        selectors = [(_family(source.version), source.network_address.packed, source.prefixlen)]
    else:
        families = {route(each).family for each in wanted.routes} or set(FAMILIES)
        selectors = [(family, b"", 0) for family in sorted(families)]
    ports = _ports(wanted.src_port), _ports(wanted.dst_port)
    return [Rule(*each, int(wanted.proto or 0), *ports, table, priority) for each in selectors]


def policy_routes(wanted: PolicyRoute, table: int) -> list[RouteFact]:
    """The routes in a policy's table: a default route if it names none."""
    if wanted.routes:
        return [route(each, table) for each in wanted.routes]
    return [
        route(Route("0.0.0.0/0" if rule.family == AF_INET else "::/0"), table)
        for rule in rules(wanted, table, 0)
    ]


def addresses_of(session: Session, index: int) -> set[Address]:
    """Global addresses of an interface."""
    found = set()
    for body in session.dump(
        Message(wire.RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, index)), "a list of addresses"
    ):
        family, length, _, scope, where = _IFADDR.unpack_from(body)
        attributes = wire.unpack(body[_IFADDR.size :])
        ip = attributes.get(wire.IFA_LOCAL) or attributes[wire.IFA_ADDRESS]
        if where == index and scope == wire.RT_SCOPE_UNIVERSE:
            found.add(Address(family, ip, length, wire.number(attributes, wire.IFA_PROTO) == PROTOCOL))
    return found


def routes_of(session: Session, index: int = 0) -> set[RouteFact]:
    """Unicast routes over an interface, of every table; 0 = over any."""
    found: set[RouteFact] = set()
    for family in FAMILIES:
        attributes = [(wire.RTA_OIF, wire.u32(index))] if index else []
        body = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0) + wire.pack(attributes)
        for answer in session.dump(Message(wire.RTM_GETROUTE, body), "a list of routes"):
            found.update(_route_in(answer, index))
    return found


def neighbours_of(session: Session, index: int) -> set[Neighbour]:
    """Permanent neighbours of an interface."""
    body = _NEIGHBOUR.pack(0, 0, 0, 0, 0, 0) + wire.pack([(NDA_IFINDEX, wire.u32(index))])
    found = set()
    for answer in session.dump(Message(wire.RTM_GETNEIGH, body), "a list of neighbours"):
        family, _, where, state, _, _ = _NEIGHBOUR.unpack_from(answer)
        attributes = wire.unpack(answer[_NEIGHBOUR.size :])
        if where == index and state & wire.NUD_PERMANENT and family in FAMILIES:
            is_ours = wire.number(attributes, NDA_PROTOCOL) == PROTOCOL
            found.add(
                Neighbour(family, attributes[wire.NDA_DST], attributes.get(wire.NDA_LLADDR, b""), is_ours)
            )
    return found


def all_rules(session: Session) -> set[Rule]:
    """Every policy rule that leads into a table."""
    found: set[Rule] = set()
    for family in FAMILIES:
        body = _RULE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in session.dump(Message(wire.RTM_GETRULE, body), "a list of rules"):
            found.update(_rule_in(answer))
    return found


def _route_in(body: bytes, index: int) -> Iterable[RouteFact]:
    family, length, _, _, short_table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    attributes = wire.unpack(body[_ROUTE.size :])
    where = wire.number(attributes, wire.RTA_OIF)
    if kind == wire.RTN_UNICAST and (not index or where == index):
        yield RouteFact(
            family,
            attributes.get(wire.RTA_DST, bytes(4 if family == AF_INET else 16)),
            length,
            attributes.get(wire.RTA_GATEWAY, b""),
            wire.number(attributes, wire.RTA_TABLE, short_table),
            protocol == PROTOCOL,
            where,
        )


def _rule_in(body: bytes) -> Iterable[Rule]:
    family, _, length, _, short_table, _, _, action, _ = _RULE.unpack_from(body)
    attributes = wire.unpack(body[_RULE.size :])
    if action == wire.FR_ACT_TO_TBL:
        yield Rule(
            family,
            attributes.get(wire.FRA_SRC, b""),
            length,
            wire.number(attributes, wire.FRA_IP_PROTO),
            _range(attributes.get(wire.FRA_SPORT_RANGE)),
            _range(attributes.get(wire.FRA_DPORT_RANGE)),
            wire.number(attributes, wire.FRA_TABLE, short_table),
            wire.number(attributes, wire.FRA_PRIORITY),
            wire.number(attributes, wire.FRA_PROTOCOL) == PROTOCOL,
        )


def _range(value: bytes | None) -> Range:
    if value is None:
        return 0, 0
    first, last = _PORTS.unpack(value)
    return first, last


def _ports(text: str) -> Range:
    first, _, last = text.partition("-")
    return int(first or 0), int(last or first or 0)


def _family(version: int) -> int:
    return int(AF_INET if version == 4 else AF_INET6)
