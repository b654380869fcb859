"""The prefixes of a client's other connections, which a new one must not use again (reference §3.11). Pure."""

from collections.abc import Iterable
from dataclasses import replace

from controlplane.endpoint.prefixes import host, parse_address, parse_network
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext
from nsm.model.errors import Code, NsmError


def prefixes_of(connection: Connection) -> tuple[str, ...]:
    """What a connection occupies: its addresses at both ends and the prefixes it routes.

    A default route takes nothing away from others, every more special route does.
    """
    ip = connection.ip
    found = [host(a) for text in (*ip.src_ip_addrs, *ip.dst_ip_addrs) if (a := parse_address(text))]
    for route in (*ip.src_routes, *ip.dst_routes):
        network = parse_network(route.prefix)
        if network is not None and network.prefixlen > 0:
            found.append(str(network))
    return tuple(dict.fromkeys(found))


def excluding(connection: Connection, others: Iterable[str], own: Iterable[str]) -> Connection:
    """The connection asking to keep off ``others``; ``own`` are those we asked for before and may drop."""
    wanted = tuple(dict.fromkeys(others))
    dropped = set(own) - set(wanted)
    ip = connection.ip
    kept = tuple(prefix for prefix in ip.excluded_prefixes if prefix not in dropped)
    excluded = tuple(dict.fromkeys((*kept, *wanted)))
    if excluded == ip.excluded_prefixes:
        return connection
    context = connection.context or ConnectionContext()
    return replace(connection, context=replace(context, ip_context=replace(ip, excluded_prefixes=excluded)))


def check(connection: Connection, others: Iterable[str]) -> None:
    """Refuse an answer that gives an address another connection has: FAILED_PRECONDITION names it (trap 43)."""
    taken = {network for text in others if (network := parse_network(text)) and network.num_addresses == 1}
    for text in (*connection.ip.src_ip_addrs, *connection.ip.dst_ip_addrs):
        address = parse_address(text)
        if address is not None and parse_network(host(address)) in taken:
            raise NsmError(
                Code.FAILED_PRECONDITION,
                f"expected addresses that none of our other connections has, got {text}",
                field="connection.context.ip_context",
            )
