"""What all owners want together; an item that several want is simply the same key (design §4)."""

from collections.abc import Iterable, Iterator, Mapping

from forwarder_vpp.dataplane.contract.items import Item, Key
from nsm.model.errors import Code, NsmError


class Wanted(Mapping[Key, Item]):
    """The union of the items of every owner, reference-counted."""

    def __init__(self) -> None:
        self._items: dict[Key, Item] = {}
        self._owners: dict[Key, set[str]] = {}
        self._keys: dict[str, tuple[Key, ...]] = {}

    def __getitem__(self, key: Key) -> Item:
        return self._items[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def keys_of(self, owner: str) -> tuple[Key, ...]:
        """The keys ``owner`` wants."""
        return self._keys.get(owner, ())

    def owners_of(self, key: Key) -> frozenset[str]:
        """Who wants ``key``."""
        return frozenset(self._owners.get(key, ()))

    def set(self, owner: str, items: Iterable[Item]) -> tuple[Key, ...]:
        """``owner`` wants ``items`` from now on and nothing else; every key it wants, in that order, or wanted.

        NsmError ALREADY_EXISTS: another owner wants one of the keys with other facts. Nothing has changed then.
        """
        fresh = {item.key: item for item in items}
        for key, item in fresh.items():
            if self._owners.get(key, set()) - {owner} and self._items[key] != item:
                raise NsmError(
                    Code.ALREADY_EXISTS,
                    f"{key} is used by another connection with other parameters",
                    field=key.kind,
                )
        before = self._keys.get(owner, ())
        for key in before:
            if key not in fresh:
                self._drop(key, owner)
        for key, item in fresh.items():
            self._items[key] = item
            self._owners.setdefault(key, set()).add(owner)
        self._keys[owner] = tuple(fresh)
        return tuple(dict.fromkeys((*fresh, *before)))

    def remove(self, owner: str) -> tuple[Key, ...]:
        """``owner`` wants nothing more; the keys it wanted."""
        before = self._keys.pop(owner, ())
        for key in before:
            self._drop(key, owner)
        return before

    def _drop(self, key: Key, owner: str) -> None:
        owners = self._owners[key]
        owners.discard(owner)
        if not owners:
            del self._owners[key], self._items[key]
