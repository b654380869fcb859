"""An IP address of an interface in VPP (the uplink's)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import interface as api
from forwarder_vpp.dataplane.vpp.messages.ip import AddressDump

from .inventory import inventory
from .keys import ADDRESS, number
from .outcome import remove


@dataclass(frozen=True, slots=True)
class Address:
    """``address`` with its prefix length; ``after`` must exist first (the access list)."""

    interface: Key
    address: str
    after: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """One for an interface and an address."""
        return Key(ADDRESS, f"{self.interface}/{ip_interface(self.address)}")

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.interface, *self.after)


class Addresses:
    """Descriptor of ``Address``; no handle."""

    kind = ADDRESS

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: Address, handles: Handles) -> object:
        """One message."""
        await self._vpp.call(_message(item, number(handles, item.interface), is_add=True))
        return None

    def updatable(self, old: Address, new: Address) -> bool:
        """All facts are in the key."""
        return old.key == new.key

    async def update(self, old: Address, new: Address, handle: object, handles: Handles) -> object:
        """Nothing in VPP changes."""
        return handle

    async def delete(self, item: Address, handle: object, handles: Handles) -> None:
        """One message."""
        await remove(self._vpp, _message(item, number(handles, item.interface), is_add=False))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those of wanted interfaces and of tagged ones."""
        names = {each.interface for each in wanted.values() if isinstance(each, Address)}
        present = []
        for found in (await inventory(self._vpp)).by_index.values():
            if found.key not in names and not found.owner:
                continue
            for is_ipv6 in (False, True):
                for each in await self._vpp.dump(AddressDump(found.index, is_ipv6)):
                    key = Address(found.key, str(each.prefix)).key
                    known = wanted.get(key)
                    item = known if isinstance(known, Address) else Address(found.key, str(each.prefix))
                    present.append(Present(key, item, None, found.owner))
        return present


def _message(item: Address, index: int, *, is_add: bool) -> api.InterfaceAddress:
    return api.InterfaceAddress(
        sw_if_index=index, is_add=is_add, del_all=False, prefix=ip_interface(item.address)
    )
