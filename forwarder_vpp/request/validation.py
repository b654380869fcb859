"""What no Request may ask for, each with the field and the expectation; pure."""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from nsm.model.addresses import ip_address, ip_interface, ip_network
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext, PolicyRoute, Route
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.mechanism import PAYLOADS

CONTEXT = "connection.context"
IP_CONTEXT = f"{CONTEXT}.ip_context"
MAX_ENTRIES = 1024
"""Addresses, routes, neighbours or policies of one connection."""

DEFAULT_MTU = 9000
"""Bytes where nobody said otherwise (reference §3.14)."""

MIN_MTU = 68
MIN_MTU_V6 = 1280
MAX_MTU = 65535
_KEPT = 4096


def check_connection(connection: Connection) -> None:
    """A Request's connection as it arrives. NsmError INVALID_ARGUMENT."""
    if not connection.network_service and not connection.network_service_endpoint_name:
        raise invalid("connection.network_service", "the name of a network service", "")
    if connection.payload:
        check_payload(connection.payload)
    check_context(connection.ctx)


def check_payload(payload: str) -> None:
    """One of those NSM knows."""
    if payload not in PAYLOADS:
        raise invalid("connection.payload", " or ".join(PAYLOADS), payload)


def check_context(context: ConnectionContext) -> None:
    """Addresses, routes, neighbours, policies, MTU."""
    _check_ip(context.ip)
    if context.ethernet_context is not None:
        for name, mac in (
            ("src_mac", context.ethernet_context.src_mac),
            ("dst_mac", context.ethernet_context.dst_mac),
        ):
            if mac:
                check_mac(mac, f"{CONTEXT}.ethernet_context.{name}")
    check_mtu(context.mtu, context)


@lru_cache(_KEPT)
def _check_ip(ip: IpContext) -> None:
    """What was found to be good is not looked at again."""
    for name, entries in (
        ("src_ip_addrs", ip.src_ip_addrs),
        ("dst_ip_addrs", ip.dst_ip_addrs),
        ("src_routes", ip.src_routes),
        ("dst_routes", ip.dst_routes),
        ("ip_neighbors", ip.ip_neighbors),
        ("policies", ip.policies),
    ):
        if len(entries) > MAX_ENTRIES:
            raise invalid(f"{IP_CONTEXT}.{name}", f"at most {MAX_ENTRIES} entries", len(entries))
    for name, addresses in (("src_ip_addrs", ip.src_ip_addrs), ("dst_ip_addrs", ip.dst_ip_addrs)):
        for position, text in enumerate(addresses):
            _parse(
                ip_interface, text, f"{IP_CONTEXT}.{name}[{position}]", "an address with its prefix length"
            )
    _check_routes(ip.src_routes, f"{IP_CONTEXT}.src_routes")
    _check_routes(ip.dst_routes, f"{IP_CONTEXT}.dst_routes")
    for position, neighbour in enumerate(ip.ip_neighbors):
        where = f"{IP_CONTEXT}.ip_neighbors[{position}]"
        _parse(ip_address, neighbour.ip, f"{where}.ip", "an address")
        check_mac(neighbour.hardware_address, f"{where}.hardware_address")
    for position, policy in enumerate(ip.policies):
        _check_policy(policy, f"{IP_CONTEXT}.policies[{position}]")
    _check_conflict(ip.src_ip_addrs, ip.dst_ip_addrs)


def check_mtu(mtu: int, context: ConnectionContext) -> None:
    """``mtu`` in bytes, 0 = not said."""
    if mtu and not MIN_MTU <= mtu <= MAX_MTU:
        raise invalid(f"{CONTEXT}.MTU", f"{MIN_MTU} to {MAX_MTU} bytes", mtu)
    if 0 < mtu < MIN_MTU_V6 and any(
        ":" in text for text in (*context.ip.src_ip_addrs, *context.ip.dst_ip_addrs)
    ):
        raise invalid(f"{CONTEXT}.MTU", f"at least {MIN_MTU_V6} bytes with IPv6 addresses", mtu)


def check_mac(text: str, field: str) -> None:
    """``aa:bb:cc:dd:ee:ff``, not a group's."""
    parts = text.split(":")
    is_mac = len(parts) == 6 and all(len(part) == 2 and _is_hex(part) for part in parts)
    if not is_mac or int(parts[0], 16) & 1:
        raise invalid(field, "a MAC address of one interface like 02:00:00:00:00:01", text)


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)


def _check_routes(routes: Iterable[Route], field: str) -> None:
    for position, route in enumerate(routes):
        where = f"{field}[{position}]"
        prefix = _parse(
            lambda text: ip_network(text, strict=False), route.prefix, f"{where}.prefix", "a prefix"
        )
        if route.next_hop:
            hop = _parse(ip_address, route.next_hop, f"{where}.next_hop", "an address")
            if (":" in str(hop)) != (":" in str(prefix)):
                raise invalid(
                    f"{where}.next_hop", f"an address of the family of {route.prefix}", route.next_hop
                )


def _check_policy(policy: PolicyRoute, where: str) -> None:
    if policy.source:
        _parse(
            lambda text: ip_network(text, strict=False),
            policy.source,
            f"{where}.from",
            "a prefix or an address",
        )
    for name, text in (("dst_port", policy.dst_port), ("src_port", policy.src_port)):
        ports = list(_ports(text))
        if any(not 0 < port < 65536 for port in ports) or len(ports) > 2 or ports != sorted(ports):
            raise invalid(f"{where}.{name}", "a port or a range like 80-90", text)
    if any((policy.dst_port, policy.src_port)) and not policy.proto:
        raise invalid(f"{where}.proto", "a protocol that has ports, such as tcp", "")
    _check_routes(policy.routes, f"{where}.routes")


def _ports(text: str) -> Iterator[int]:
    for part in text.split("-") if text else ():
        yield int(part) if part.isascii() and part.isdigit() and len(part) < 6 else 0


def _check_conflict(source: Iterable[str], destination: Iterable[str]) -> None:
    common = {str(ip_interface(each).ip) for each in source} & {
        str(ip_interface(each).ip) for each in destination
    }
    if common:
        text = f"both ends have the address {', '.join(sorted(common))}"
        raise NsmError(Code.INVALID_ARGUMENT, text, field=f"{IP_CONTEXT}.src_ip_addrs")


def _parse(parser: object, text: str, field: str, expected: str) -> object:
    try:
        if not text or "%" in text:
            raise ValueError(text)
        return parser(text)  # type: ignore[operator]
    except ValueError:
        raise invalid(field, expected, text) from None
