"""A route of the underlay, taken over from the kernel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import ip as api

from .inventory import inventory
from .keys import ROUTE, number
from .outcome import remove

_API_SOURCE = 11  # FIB source "API" of VPP 26.06: what was written over the API, not what VPP derived
_NOT_OURS = ("0.0.0.0/32", "::/128")


@dataclass(frozen=True, slots=True)
class Route:
    """``prefix`` over ``interface`` to ``next_hop`` (empty = on-link)."""

    prefix: str
    interface: Key
    next_hop: str = ""
    after: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """VPP keeps one entry for each prefix."""
        return Key(ROUTE, str(ip_network(self.prefix)))

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.interface, *self.after)


class Routes:
    """Descriptor of ``Route``; no handle."""

    kind = ROUTE

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: Route, handles: Handles) -> object:
        """One message; it replaces the paths of the same prefix."""
        await self._vpp.call(_message(item, number(handles, item.interface), is_add=True))
        return None

    def updatable(self, old: Route, new: Route) -> bool:
        """In place."""
        return old.key == new.key

    async def update(self, old: Route, new: Route, handle: object, handles: Handles) -> object:
        """As a creation."""
        return await self.create(new, handles)

    async def delete(self, item: Route, handle: object, handles: Handles) -> None:
        """One message."""
        await remove(self._vpp, _message(item, number(handles, item.interface), is_add=False))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those over tagged interfaces that came over the API, and wanted ones."""
        interfaces = (await inventory(self._vpp)).by_index
        present = []
        for is_ip6 in (False, True):
            for each in await self._vpp.dump(api.RouteDump(src=0, table_id=0, is_ip6=is_ip6)):
                if len(each.paths) != 1 or each.src != _API_SOURCE:
                    continue
                found = interfaces.get(each.paths[0].sw_if_index)
                if found is None or not found.owner:
                    continue
                prefix = str(each.prefix.network)
                hop = _next_hop(each.paths[0], is_ip6=is_ip6)
                known = wanted.get(Key(ROUTE, prefix))
                after = known.after if isinstance(known, Route) else ()
                item = Route(prefix, found.key, hop, after)
                present.append(Present(item.key, item, None, found.owner))
        return present


def _next_hop(path: api.FibPath, *, is_ip6: bool) -> str:
    hop = IPv6Address(path.next_hop) if is_ip6 else IPv4Address(path.next_hop[:4])
    return "" if hop.is_unspecified else str(hop)


def _message(item: Route, index: int, *, is_add: bool) -> api.Route:
    prefix = ip_interface(item.prefix)
    attached = IPv4Address(0) if prefix.version == 4 else IPv6Address(0)
    hop = ip_address(item.next_hop) if item.next_hop else attached
    return api.Route(
        is_add=is_add,
        is_multipath=False,
        table_id=0,
        stats_index=0,
        prefix=prefix,
        src=0,
        paths=(api.path_to(index, hop),),
    )
