"""Two interfaces joined at layer 3: each IP packet one receives leaves by the other, for both families."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Call, Vpp
from forwarder_vpp.dataplane.vpp.messages import l3xc as api
from forwarder_vpp.dataplane.vpp.messages.common import MadeEntry
from forwarder_vpp.dataplane.vpp.messages.ip import path_to
from nsm.model.errors import NsmError

from .inventory import inventory
from .keys import L3_XCONNECT, number
from .outcome import remove, together
from .tags import CLIENT, role_of

NEXT_HOP4: Final = IPv4Address("169.254.0.1")
NEXT_HOP6: Final = IPv6Address("fe80::1")
"""Who is behind every interface, whatever addresses the workload has: a static neighbour gives it a MAC on a
veth, and WireGuard only wants it not to be zero. So a change of addresses concerns VPP in nothing."""

_ABSENT = frozenset({"INVALID_VALUE", "INVALID_SW_IF_INDEX"})
_IP6 = 1  # a path's protocol; the dump itself leaves is_ip6 false for both families
_FAMILIES = ((False, NEXT_HOP4), (True, NEXT_HOP6))


@dataclass(frozen=True, slots=True)
class L3Xconnect:
    """Both directions and both families between two interfaces; ``one`` is the client's end."""

    one: Key
    other: Key

    @property
    def key(self) -> Key:
        """By the client's end: an interface is part of one cross-connect only."""
        return Key(L3_XCONNECT, str(self.one))

    @property
    def requires(self) -> tuple[Key, ...]:
        """Both interfaces."""
        return (self.one, self.other)


class L3Xconnects:
    """Descriptor of ``L3Xconnect``; no handle."""

    kind = L3_XCONNECT

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: L3Xconnect, handles: Handles) -> object:
        """Eight messages, one round trip.

        An entry left by a deleted interface of the same index would make the new one ineffective, so all are
        deleted first (reference §3.2), and all are deleted again when one is refused.
        """
        requests: list[Call[object]] = [*_deletes(item, handles)]
        requests += _updates(item, handles)
        try:
            outcomes = await together(self._vpp, requests, ignore=_ABSENT)
            for outcome in outcomes[4:]:
                if not isinstance(outcome, MadeEntry):
                    raise outcome
        except NsmError:
            with suppress(NsmError):  # the refusal before is the reason
                await self.delete(item, None, handles)
            raise
        return None

    def updatable(self, old: L3Xconnect, new: L3Xconnect) -> bool:
        """Delete and write are neighbours in one batch: nothing is carried out between them."""
        return old.key == new.key

    async def update(self, old: L3Xconnect, new: L3Xconnect, handle: object, handles: Handles) -> object:
        """As a creation."""
        return await self.create(new, handles)

    async def delete(self, item: L3Xconnect, handle: object, handles: Handles) -> None:
        """Four messages; without them the entries stay listed when their interface goes."""
        await remove(self._vpp, *_deletes(item, handles), gone=_ABSENT)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those that are complete, between tagged interfaces.

        The dump also lists what deleted interfaces left; the tag is written after the cross-connect, so an
        interface that has one has its entries.
        """
        interfaces = (await inventory(self._vpp)).by_index
        targets: dict[int, set[tuple[bool, int, bytes]]] = {}
        for each in await self._vpp.dump(api.L3xcDump()):
            for path in each.paths:
                targets.setdefault(each.sw_if_index, set()).add(
                    (path.proto == _IP6, path.sw_if_index, path.next_hop)
                )
        present = []
        for rx, paths in targets.items():
            tx = next(iter(paths))[1]
            one, other = interfaces.get(rx), interfaces.get(tx)
            if one is None or other is None or role_of(one.common.tag) != CLIENT or one.owner != other.owner:
                continue
            if paths == _complete(tx) and targets.get(tx) == _complete(rx):
                item = L3Xconnect(one.key, other.key)
                present.append(Present(item.key, item, None, one.owner))
        return present


def _complete(target: int) -> set[tuple[bool, int, bytes]]:
    return {(is_ip6, target, hop.packed.ljust(16, b"\0")) for is_ip6, hop in _FAMILIES}


def _deletes(item: L3Xconnect, handles: Handles) -> list[api.L3xcDelete]:
    ends = (number(handles, item.one), number(handles, item.other))
    return [api.L3xcDelete(index, is_ip6) for index in ends for is_ip6 in (False, True)]


def _updates(item: L3Xconnect, handles: Handles) -> list[api.L3xcUpdate]:
    one, other = number(handles, item.one), number(handles, item.other)
    return [
        api.L3xcUpdate(sw_if_index=rx, is_ip6=is_ip6, paths=(path_to(tx, hop),))
        for rx, tx in ((one, other), (other, one))
        for is_ip6, hop in _FAMILIES
    ]
