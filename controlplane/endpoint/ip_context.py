"""Reading and writing the addresses of an IP context: what it offers, what goes, what is put in. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from controlplane.endpoint.prefixes import Address, AddressSet, Network, host, parse_address, parse_network
from nsm.model.context import IpContext, Route
from nsm.model.errors import invalid

_FIELD = "connection.context.ip_context"


@dataclass(frozen=True, slots=True)
class Offer:
    """The addresses a Request brings: the context without what cannot stay, and those of ours in it."""

    context: IpContext
    src: tuple[Address, ...]
    dst: tuple[Address, ...]

    @classmethod
    def of(cls, context: IpContext, ours: AddressSet, *, strict: bool) -> "Offer":
        """Sort the addresses of a context into ours and others; strict removes the others."""
        src = _parsed("src_ip_addrs", context.src_ip_addrs, strict=strict)
        dst = _parsed("dst_ip_addrs", context.dst_ip_addrs, strict=strict)
        if strict:
            foreign = {text for text, address in (*src, *dst) if address is None or address not in ours}
            context = _removed(context, foreign, foreign)
        return cls(
            context,
            tuple(address for _, address in src if address is not None and address in ours),
            tuple(address for _, address in dst if address is not None and address in ours),
        )

    def kept(
        self, pairs: Sequence[tuple[Address, Address]], others: Iterable[Address], ours: AddressSet
    ) -> IpContext:
        """The context without those of our addresses that this connection does not hold at that end."""
        spare = frozenset(others)
        src = spare.union(address for address, _ in pairs)
        dst = spare.union(address for _, address in pairs)
        return _removed(
            self.context,
            _lost(self.context.src_ip_addrs, src, ours),
            _lost(self.context.dst_ip_addrs, dst, ours),
        )


def _lost(texts: Iterable[str], held: frozenset[Address], ours: AddressSet) -> set[str]:
    """Those texts whose address is one of ours but not held."""
    known = ((text, parse_address(text)) for text in texts)
    return {
        text for text, address in known if address is not None and address in ours and address not in held
    }


def excluded_networks(prefixes: Iterable[str]) -> Iterator[Network]:
    """The excluded prefixes; INVALID_ARGUMENT for a malformed one, which must not be ignored."""
    for text in prefixes:
        network = parse_network(text)
        if network is None:
            raise invalid(f"{_FIELD}.excluded_prefixes", "prefixes like 10.0.0.0/24", text)
        yield network


def _parsed(name: str, texts: Iterable[str], *, strict: bool) -> list[tuple[str, Address | None]]:
    result = [(text, parse_address(text)) for text in texts]
    for text, address in result:
        if address is None and not strict:
            raise invalid(f"{_FIELD}.{name}", "addresses like 10.0.0.1/32", text)
    return result


def _removed(context: IpContext, src: set[str], dst: set[str]) -> IpContext:
    """Without these addresses and the host routes the other end has to them."""
    return replace(
        context,
        src_ip_addrs=tuple(text for text in context.src_ip_addrs if text not in src),
        dst_ip_addrs=tuple(text for text in context.dst_ip_addrs if text not in dst),
        src_routes=tuple(route for route in context.src_routes if route.prefix not in dst),
        dst_routes=tuple(route for route in context.dst_routes if route.prefix not in src),
    )


def written(context: IpContext, pairs: Sequence[tuple[Address, Address]]) -> IpContext:
    """With these pairs (src, dst) and their routes, each once, after what is there."""
    src = tuple(host(address) for address, _ in pairs)
    dst = tuple(host(address) for _, address in pairs)
    return replace(
        context,
        src_ip_addrs=tuple(dict.fromkeys((*context.src_ip_addrs, *src))),
        dst_ip_addrs=tuple(dict.fromkeys((*context.dst_ip_addrs, *dst))),
        src_routes=_with_routes(context.src_routes, dst),
        dst_routes=_with_routes(context.dst_routes, src),
    )


def _with_routes(routes: tuple[Route, ...], prefixes: Iterable[str]) -> tuple[Route, ...]:
    known = {route.prefix for route in routes}
    return (*routes, *(Route(prefix) for prefix in dict.fromkeys(prefixes) if prefix not in known))
