"""KERNEL: an interface in a workload's namespace, and all the connection puts on it (reference §2.3)."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from forwarder_vpp.dataplane.contract.intent import KernelEnd, NetnsId
from nsm.model.addresses import Interface, ip_address, ip_interface, ip_network
from nsm.model.context import ConnectionContext, EthernetContext, IpContext, IpNeighbor, PolicyRoute, Route
from nsm.model.errors import invalid
from nsm.model.mechanism import INTERFACE_NAME, KERNEL, LOCAL, Mechanism

MAX_NAME: Final = 15
NAME_FIELD: Final = f"connection.mechanism.parameters.{INTERFACE_NAME}"
_PREFIX_LENGTH: Final = 10
_KEPT: Final = 2048
"""Ends of each kind that are remembered: a refresh asks for the same one again."""
_NONE: Final = EthernetContext()


def preference() -> Mechanism:
    """What an endpoint is asked for: it chooses name and namespace (trap 39)."""
    return Mechanism(LOCAL, KERNEL)


def check_name(name: str) -> None:
    """INVALID_ARGUMENT for a name the kernel would refuse or that means something else to it."""
    size = len(name.encode())
    is_odd = any(char in "/:%" or char.isspace() or not char.isprintable() for char in name)
    if not 0 < size <= MAX_NAME or is_odd or name in {".", ".."}:
        raise invalid(NAME_FIELD, f"an interface name of 1 to {MAX_NAME} bytes without /, : or blanks", name)


def default_name(service: str, random: str) -> str:
    """Upstream's form: the service cut to 10 characters, a dash, ``random`` up to 15 bytes."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in service)
    stem = f"{kept[:_PREFIX_LENGTH]}-"
    return stem + random[: MAX_NAME - len(stem)]


def client_end(netns: NetnsId, name: str, context: ConnectionContext) -> KernelEnd:
    """The client's interface: *src* addresses, and policies as rules."""
    return _client_end(netns, name, context.ip, (context.ethernet_context or _NONE).src_mac)


@lru_cache(_KEPT)
def _client_end(netns: NetnsId, name: str, ip: IpContext, mac: str) -> KernelEnd:
    routes = _routes(ip.src_ip_addrs, ip.dst_ip_addrs, ip.src_routes)
    rules = tuple(_rule(policy, ip) for policy in ip.policies)
    return _end(
        netns,
        name,
        addresses=ip.src_ip_addrs,
        routes=routes,
        rules=rules,
        neighbours=ip.ip_neighbors,
        mac=mac,
    )


def endpoint_end(netns: NetnsId, name: str, context: ConnectionContext) -> KernelEnd:
    """The endpoint's interface: *dst* addresses."""
    return _endpoint_end(netns, name, context.ip, (context.ethernet_context or _NONE).dst_mac)


@lru_cache(_KEPT)
def _endpoint_end(netns: NetnsId, name: str, ip: IpContext, mac: str) -> KernelEnd:
    routes = _routes(ip.dst_ip_addrs, ip.src_ip_addrs, ip.dst_routes)
    return _end(
        netns,
        name,
        addresses=ip.dst_ip_addrs,
        routes=routes,
        rules=(),
        neighbours=ip.ip_neighbors,
        mac=mac,
    )


def _end(
    netns: NetnsId,
    name: str,
    *,
    addresses: Sequence[str],
    routes: tuple[Route, ...],
    rules: tuple[PolicyRoute, ...],
    neighbours: Sequence[IpNeighbor],
    mac: str,
) -> KernelEnd:
    known = tuple(IpNeighbor(str(ip_address(each.ip)), each.hardware_address.lower()) for each in neighbours)
    unique = tuple(dict.fromkeys(str(ip_interface(each)) for each in addresses))
    return KernelEnd(netns, name, unique, routes, known, rules, mac.lower())


def _routes(own: Sequence[str], opposite: Sequence[str], routes: Sequence[Route]) -> tuple[Route, ...]:
    """On-link routes to the opposite addresses no own prefix covers, then ``routes`` with their next hops."""
    own_interfaces = [ip_interface(each) for each in own]
    far = [ip_interface(each) for each in opposite]
    found = {_host(each): "" for each in far if not _covered(each, own_interfaces)}
    for route in routes:
        prefix = str(ip_network(route.prefix, strict=False))
        found.setdefault(prefix, _next_hop(route, own_interfaces, far))
    return tuple(Route(prefix, hop) for prefix, hop in found.items())


def _next_hop(route: Route, own: Sequence[Interface], far: Sequence[Interface]) -> str:
    """The route's own, else the first opposite address of its family; "" where the prefix is on-link."""
    if route.next_hop:
        return str(ip_address(route.next_hop))
    network = ip_network(route.prefix, strict=False)
    same = [each for each in far if each.version == network.version]
    on_link = any(_host(each) == str(network) for each in same) or any(
        each.network == network for each in own if each.network.prefixlen < each.max_prefixlen
    )
    return "" if on_link or not same else str(same[0].ip)


def _rule(policy: PolicyRoute, ip: IpContext) -> PolicyRoute:
    """The policy with the next hops of its routes filled in; without routes it means everything."""
    own = [ip_interface(each) for each in ip.src_ip_addrs]
    far = [ip_interface(each) for each in ip.dst_ip_addrs]
    routes = policy.routes or tuple(_everything(policy, far))
    filled = tuple(Route(str(ip_network(r.prefix, strict=False)), _next_hop(r, own, far)) for r in routes)
    return PolicyRoute(policy.source, policy.proto, policy.dst_port, policy.src_port, filled)


def _everything(policy: PolicyRoute, far: Sequence[Interface]) -> Iterator[Route]:
    is_v6 = ":" in policy.source if policy.source else bool(far) and far[0].version == 6
    yield Route("::/0" if is_v6 else "0.0.0.0/0")


def _covered(address: Interface, own: Sequence[Interface]) -> bool:
    return any(each.version == address.version and address.ip in each.network for each in own)


def _host(address: Interface) -> str:
    return f"{address.ip}/{address.max_prefixlen}"
