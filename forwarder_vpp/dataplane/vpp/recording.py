"""A descriptor that remembers the handles of what it made or found, for whoever waits for or counts something."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forwarder_vpp.dataplane.contract.items import Descriptor, Handles, Item, Key, Present
from forwarder_vpp.dataplane.vpp.objects.tags import CLIENT, ENDPOINT


class Recording:
    """Passes everything on to ``descriptor``; ``known`` is shared by all kinds."""

    def __init__(self, descriptor: Descriptor[Any], known: dict[Key, int]) -> None:
        self.kind = descriptor.kind
        self._descriptor = descriptor
        self._known = known

    async def create(self, item: Any, handles: Handles) -> object:
        """Make the object and keep its handle."""
        handle = await self._descriptor.create(item, handles)
        if isinstance(handle, int):
            self._known[item.key] = handle
        return handle

    def updatable(self, old: Any, new: Any) -> bool:
        """As the descriptor says."""
        return self._descriptor.updatable(old, new)

    async def update(self, old: Any, new: Any, handle: object, handles: Handles) -> object:
        """As the descriptor does."""
        return await self._descriptor.update(old, new, handle, handles)

    async def delete(self, item: Any, handle: object, handles: Handles) -> None:
        """Remove the object and forget its handle."""
        await self._descriptor.delete(item, handle, handles)
        self._known.pop(item.key, None)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """What exists; the handles are kept."""
        found = await self._descriptor.dump(wanted)
        for each in found:
            if isinstance(each.handle, int):
                self._known[each.key] = each.handle
        return found


class OwnedByConnection:
    """A descriptor whose objects are owned by one end of a connection, as objects of the whole connection."""

    def __init__(self, descriptor: Descriptor[Any]) -> None:
        self.kind = descriptor.kind
        self.create: Callable[..., Any] = descriptor.create
        self.updatable: Callable[..., bool] = descriptor.updatable
        self.update: Callable[..., Any] = descriptor.update
        self.delete: Callable[..., Any] = descriptor.delete
        self._dump = descriptor.dump

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """What exists, the owner without the role."""
        return [
            Present(each.key, each.item, each.handle, _whole(each.owner)) for each in await self._dump(wanted)
        ]


def _whole(owner: str) -> str:
    name, _, role = owner.rpartition("/")
    return name if role in {CLIENT, ENDPOINT} else owner
