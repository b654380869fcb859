"""What a connection carries for the workload: addresses, routes, DNS, Ethernet facts, MTU (reference §1.4)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Family(IntEnum):
    """``connectioncontext.IpFamily.Family``."""

    IPV4 = 0
    IPV6 = 1


@dataclass(frozen=True, slots=True)
class IpNeighbor:
    """A static neighbour: ``ip`` text, ``hardware_address`` as ``aa:bb:cc:dd:ee:ff``."""

    ip: str = ""
    hardware_address: str = ""
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """``prefix`` as ``address/length``; ``next_hop`` may be empty (filled by the forwarder)."""

    prefix: str = ""
    next_hop: str = ""
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ExtraPrefixRequest:
    """How many further prefixes of which length a client wants.

    ``addr_family_unknown``: what the wire's ``IpFamily`` held besides its number.
    """

    addr_family: Family | None = None
    prefix_len: int = 0
    required_number: int = 0
    requested_number: int = 0
    unknown: bytes = field(default=b"", repr=False)
    addr_family_unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PolicyRoute:
    """A policy rule and its routes: ``source`` is the field ``from``; ports are ``a`` or ``a-b``."""

    source: str = ""
    proto: str = ""
    dst_port: str = ""
    src_port: str = ""
    routes: tuple[Route, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class IpContext:
    """Addresses (``address/length``) and routes of both ends: *src* is the client, *dst* the endpoint."""

    src_ip_addrs: tuple[str, ...] = ()
    dst_ip_addrs: tuple[str, ...] = ()
    src_ip_required: bool = False
    dst_ip_required: bool = False
    src_routes: tuple[Route, ...] = ()
    dst_routes: tuple[Route, ...] = ()
    excluded_prefixes: tuple[str, ...] = ()
    ip_neighbors: tuple[IpNeighbor, ...] = ()
    extra_prefix_request: tuple[ExtraPrefixRequest, ...] = ()
    extra_prefixes: tuple[str, ...] = ()
    policies: tuple[PolicyRoute, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Name servers and the search domains they answer for."""

    dns_server_ips: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class DnsContext:
    """All DNS configurations of a connection."""

    configs: tuple[DnsConfig, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EthernetContext:
    """MAC addresses of the client (*src*) and endpoint (*dst*) ends, and the VLAN tag."""

    src_mac: str = ""
    dst_mac: str = ""
    vlan_tag: int = 0
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ConnectionContext:
    """``connectioncontext.ConnectionContext``; ``mtu`` in bytes, 0 = not set."""

    ip_context: IpContext | None = None
    dns_context: DnsContext | None = None
    ethernet_context: EthernetContext | None = None
    extra_context: Mapping[str, str] = field(default_factory=dict)
    mtu: int = 0
    unknown: bytes = field(default=b"", repr=False)

    @property
    def ip(self) -> IpContext:
        """The IP context, or an empty one."""
        return self.ip_context or IpContext()
