"""Items (wanted facts), their keys, and the descriptors that make, change, remove and find them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The natural key of one dataplane object: its kind and a name that is unique within the kind."""

    kind: str
    id: str

    def __str__(self) -> str:
        """``kind/id``."""
        return f"{self.kind}/{self.id}"


class Item(Protocol):
    """One wanted dataplane object: a frozen dataclass of wanted facts only, never handles."""

    @property
    def key(self) -> Key:
        """The natural key."""

    @property
    def requires(self) -> tuple[Key, ...]:
        """Keys that must exist before this one and may only go after it."""


def carrier(item: Item | None) -> Key | None:
    """The key whose removal takes ``item`` away too (its ``carrier``); ``None`` for one that goes by itself."""
    found = getattr(item, "carrier", None)
    return found if isinstance(found, Key) else None


ItemT_contra = TypeVar("ItemT_contra", bound=Item, contravariant=True)


@dataclass(frozen=True, slots=True)
class Present:
    """An object that exists: ``item`` = its facts (``None`` = exists, but with unknown or unusable facts).

    ``handle`` is what the dataplane calls it now (``sw_if_index``); ``owner`` is the ownership tag.
    """

    key: Key
    item: Item | None
    handle: object = None
    owner: str = ""


class Handles(Protocol):
    """The handles of the objects that exist at this moment."""

    def handle(self, key: Key) -> object:
        """The handle of ``key``; KeyError if it does not exist."""


class Descriptor(Protocol, Generic[ItemT_contra]):
    """Makes, changes, removes and finds the objects of one kind.

    A failure raises NsmError. ``create`` that fails leaves nothing behind; ``delete`` of what is
    already gone succeeds.
    """

    kind: str

    async def create(self, item: ItemT_contra, handles: Handles) -> object:
        """Make the object; the result is its handle."""

    def updatable(self, old: ItemT_contra, new: ItemT_contra) -> bool:
        """Whether ``update`` can turn ``old`` into ``new`` without interrupting traffic."""

    async def update(self, old: ItemT_contra, new: ItemT_contra, handle: object, handles: Handles) -> object:
        """Change the object in place; the result is its handle."""

    async def delete(self, item: ItemT_contra, handle: object, handles: Handles) -> None:
        """Remove the object."""

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """What exists: everything that carries our ownership tag, and whatever has a wanted natural key."""
