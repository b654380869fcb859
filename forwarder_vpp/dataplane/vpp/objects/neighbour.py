"""A neighbour: the hardware address behind an IP address on one interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import ip as api

from .inventory import inventory
from .keys import NEIGHBOUR, number
from .outcome import remove


@dataclass(frozen=True, slots=True)
class Neighbour:
    """``static`` ones are never learnt anew and get no route of their own; the others VPP may correct."""

    interface: Key
    ip: str
    mac: str
    static: bool = True

    @property
    def key(self) -> Key:
        """One for an interface and an address."""
        return Key(NEIGHBOUR, f"{self.interface}/{ip_address(self.ip)}")

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.interface,)


class Neighbours:
    """Descriptor of ``Neighbour``; no handle."""

    kind = NEIGHBOUR

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: Neighbour, handles: Handles) -> object:
        """One message."""
        await self._vpp.call(_message(item, number(handles, item.interface), is_add=True))
        return None

    def updatable(self, old: Neighbour, new: Neighbour) -> bool:
        """Adding again replaces the address."""
        return old.key == new.key

    async def update(self, old: Neighbour, new: Neighbour, handle: object, handles: Handles) -> object:
        """As a creation."""
        return await self.create(new, handles)

    async def delete(self, item: Neighbour, handle: object, handles: Handles) -> None:
        """One message."""
        await remove(self._vpp, _message(item, number(handles, item.interface), is_add=False))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Static ones of tagged interfaces, and wanted ones; what VPP learnt by itself is VPP's."""
        interfaces = (await inventory(self._vpp)).by_index
        present = []
        for entry in [
            *await self._vpp.dump(api.NeighbourDump(af=0)),
            *await self._vpp.dump(api.NeighbourDump(af=1)),
        ]:
            found = interfaces.get(entry.sw_if_index)
            if found is None:
                continue
            static = bool(entry.flags & api.STATIC)
            item = Neighbour(found.key, str(entry.ip_address), entry.mac_address.hex(":"), static)
            if item.key in wanted or (found.owner and static):
                present.append(Present(item.key, item, None, found.owner))
        return present


def _message(item: Neighbour, index: int, *, is_add: bool) -> api.Neighbour:
    return api.Neighbour(
        is_add=is_add,
        sw_if_index=index,
        flags=api.STATIC | api.NO_FIB_ENTRY if item.static else 0,
        mac_address=bytes.fromhex(item.mac.replace(":", "")),
        ip_address=ip_address(item.ip),
    )
