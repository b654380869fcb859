"""IP on interfaces: enabling, addresses, neighbours, routes and the paths they use."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import StructCoder, details, dump, request
from forwarder_vpp.dataplane.vpp.fields import (
    Count,
    Ip,
    LastArray,
    Raw,
    f64,
    flag,
    ipaddr,
    ipnet,
    mac,
    text64,
    u8,
    u32,
)

from .common import ANY, Done, MadeEntry

STATIC = 1
NO_FIB_ENTRY = 2

_UNION = 16
_LABELS = 16 * 7


@dataclass(frozen=True, slots=True)
class FibPath:
    """One path of a route or cross-connect; ``next_hop`` is 16 bytes, IPv4 in the first four; no labels."""

    sw_if_index: u32
    table_id: u32
    rpf_id: u32
    weight: u8
    preference: u8
    type: u32
    flags: u32
    proto: u32
    next_hop: Annotated[bytes, Raw(_UNION)]
    via_label: u32
    obj_id: u32
    classify_table_index: u32
    n_labels: u8
    label_stack: Annotated[bytes, Raw(_LABELS)]


paths = Annotated[tuple[FibPath, ...], LastArray(StructCoder(FibPath))]


def path_to(sw_if_index: int, next_hop: Ip, *, table_id: int = 0) -> FibPath:
    """The path over an interface to a next hop of its family; the zero address = attached."""
    return FibPath(
        sw_if_index=sw_if_index,
        table_id=table_id,
        rpf_id=ANY,
        weight=1,
        preference=0,
        type=0,
        flags=0,
        proto=0 if next_hop.version == 4 else 1,
        next_hop=next_hop.packed.ljust(_UNION, b"\0"),
        via_label=0,
        obj_id=0,
        classify_table_index=0,
        n_labels=0,
        label_stack=bytes(_LABELS),
    )


@request("sw_interface_ip4_enable_disable", 0xAE6CFCFB)
class Ip4Enable(Call[Done]):
    """IPv4 without an address."""

    sw_if_index: u32
    enable: flag


@request("sw_interface_ip6_enable_disable", 0xAE6CFCFB)
class Ip6Enable(Call[Done]):
    """IPv6 without an address."""

    sw_if_index: u32
    enable: flag


@details("ip_address_details", 0xEE29B797)
class AddressDetails:
    """One address of an interface."""

    sw_if_index: u32
    prefix: ipnet


@dump("ip_address_dump", 0x2D033DE4)
class AddressDump(Dump[AddressDetails]):
    """The addresses of one interface and family."""

    sw_if_index: u32
    is_ipv6: flag


@request("ip_neighbor_add_del", 0x0607C257)
class Neighbour(Call[MadeEntry]):
    """``flags``: STATIC, NO_FIB_ENTRY."""

    is_add: flag
    sw_if_index: u32
    flags: u8
    mac_address: mac
    ip_address: ipaddr


@details("ip_neighbor_details", 0xE29D79F0)
class NeighbourDetails:
    """One neighbour; ``age`` in seconds."""

    age: f64
    sw_if_index: u32
    flags: u8
    mac_address: mac
    ip_address: ipaddr


@dump("ip_neighbor_dump", 0xD817A484)
class NeighbourDump(Dump[NeighbourDetails]):
    """Neighbours of one family, of one interface or all; ``af``: 0 IPv4, 1 IPv6."""

    sw_if_index: u32 = ANY
    af: u8 = 0


@request("ip_route_add_del_v2", 0x521EF330)
class Route(Call[MadeEntry]):
    """``src`` = 0 lets VPP name the source of the route."""

    is_add: flag
    is_multipath: flag
    table_id: u32
    stats_index: u32
    prefix: ipnet
    n_paths: ClassVar[Count] = Count("B")
    src: u8
    paths: paths


@details("ip_route_v2_details", 0xB09AA6C0)
class RouteDetails:
    """One route."""

    table_id: u32
    stats_index: u32
    prefix: ipnet
    n_paths: ClassVar[Count] = Count("B")
    src: u8
    paths: paths


@dump("ip_route_v2_dump", 0xD16F72E6)
class RouteDump(Dump[RouteDetails]):
    """The routes of one table; ``src`` = 0 for every source."""

    src: u8
    table_id: u32
    is_ip6: flag
    name: text64 = ""


MESSAGES = (Ip4Enable, Ip6Enable, AddressDump, Neighbour, NeighbourDump, Route, RouteDump)
