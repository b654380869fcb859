"""What every interface of a connection gets once it exists: MTU, software segmentation, tag, admin up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Call, Vpp
from forwarder_vpp.dataplane.vpp.messages import interface as api

from .inventory import inventory
from .keys import PORT, number
from .outcome import remove, together


@dataclass(frozen=True, slots=True)
class Port:
    """Settings of ``interface``; ``gso`` = segments are cut in software at its output. MTU in bytes.

    ``after`` must exist first where packets may not flow before (an access list).
    """

    interface: Key
    tag: str
    mtu: int
    gso: bool = False
    after: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """One for each interface."""
        return Key(PORT, str(self.interface))

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.interface, *self.after)


class Ports:
    """Descriptor of ``Port``; the handle is the ``sw_if_index``."""

    kind = PORT

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: Port, handles: Handles) -> object:
        """Up to four messages, one round trip, admin up last."""
        index = number(handles, item.interface)
        requests: list[Call[Any]] = [api.InterfaceMtu(index, (item.mtu, 0, 0, 0))]
        if item.gso:
            requests.append(api.InterfaceGso(index, enable_disable=True))
        requests.append(api.InterfaceTag(is_add=True, sw_if_index=index, tag=item.tag))
        requests.append(api.InterfaceFlags(index, api.ADMIN_UP))
        await together(self._vpp, requests, ignore={"FEATURE_ALREADY_ENABLED"})
        return index

    def updatable(self, old: Port, new: Port) -> bool:
        """All of it can be set again under traffic, but software segmentation is never taken back."""
        return old.key == new.key and new.gso >= old.gso

    async def update(self, old: Port, new: Port, handle: object, handles: Handles) -> object:
        """As a creation."""
        return await self.create(new, handles)

    async def delete(self, item: Port, handle: object, handles: Handles) -> None:
        """Down; the tag stays for as long as the interface does."""
        assert isinstance(handle, int)
        await remove(self._vpp, api.InterfaceFlags(handle, 0))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those of tagged interfaces; an interface that is down counts as one that has none."""
        present = []
        for found in (await inventory(self._vpp)).by_index.values():
            key = Key(PORT, str(found.key))
            if not found.owner or not found.common.flags & api.ADMIN_UP:
                continue
            known = wanted.get(key)
            gso, after = (known.gso, known.after) if isinstance(known, Port) else (False, ())
            item = Port(found.key, found.common.tag, found.common.mtu[0], gso, after)
            present.append(Present(key, item, found.index, found.owner))
        return present
