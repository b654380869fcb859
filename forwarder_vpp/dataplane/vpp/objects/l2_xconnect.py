"""Two interfaces joined at layer 2: what one receives leaves by the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import l2 as api

from .inventory import inventory
from .keys import L2_XCONNECT, number
from .outcome import remove, together
from .tags import CLIENT, role_of


@dataclass(frozen=True, slots=True)
class L2Xconnect:
    """Both directions between two interfaces; ``one`` is the client's end."""

    one: Key
    other: Key

    @property
    def key(self) -> Key:
        """By the client's end: an interface is part of one cross-connect only."""
        return Key(L2_XCONNECT, str(self.one))

    @property
    def requires(self) -> tuple[Key, ...]:
        """Both interfaces."""
        return (self.one, self.other)


class L2Xconnects:
    """Descriptor of ``L2Xconnect``; no handle."""

    kind = L2_XCONNECT

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: L2Xconnect, handles: Handles) -> object:
        """Two messages, one round trip."""
        await together(self._vpp, _both(item, handles, enable=True))
        return None

    def updatable(self, old: L2Xconnect, new: L2Xconnect) -> bool:
        """Writing again replaces the other end without a gap."""
        return old.key == new.key

    async def update(self, old: L2Xconnect, new: L2Xconnect, handle: object, handles: Handles) -> object:
        """As a creation."""
        return await self.create(new, handles)

    async def delete(self, item: L2Xconnect, handle: object, handles: Handles) -> None:
        """Two messages; it would go with its interfaces too."""
        await remove(self._vpp, *_both(item, handles, enable=False))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those whose both directions exist and whose client's end is tagged."""
        interfaces = (await inventory(self._vpp)).by_index
        pairs = {
            each.rx_sw_if_index: each.tx_sw_if_index for each in await self._vpp.dump(api.L2XconnectDump())
        }
        present = []
        for rx, tx in pairs.items():
            one, other = interfaces.get(rx), interfaces.get(tx)
            if one is None or other is None or role_of(one.common.tag) != CLIENT or pairs.get(tx) != rx:
                continue
            item = L2Xconnect(one.key, other.key)
            present.append(Present(item.key, item, None, one.owner))
        return present


def _both(item: L2Xconnect, handles: Handles, *, enable: bool) -> list[api.L2Xconnect]:
    one, other = number(handles, item.one), number(handles, item.other)
    return [api.L2Xconnect(one, other, enable), api.L2Xconnect(other, one, enable)]
