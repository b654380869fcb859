"""The ordered difference between what is wanted and what exists."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from forwarder_vpp.dataplane.contract.items import Item, Key, Present

from .levels import levels

Updatable = Callable[[Item, Item], bool]
Batches = tuple[tuple[Key, ...], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches of keys, each batch after the one before.

    ``clear``: must go before anything is made, as the key is exclusive and cannot be changed in place (with all
    that hangs on it). ``create`` holds ``update``s too, in one order, for a new object may be what another is
    changed to use. ``prune``: goes when the new stands. ``pending``: wanted, but what it requires neither exists
    nor is wanted.
    """

    clear: Batches = ()
    create: Batches = ()
    prune: Batches = ()
    update: frozenset[Key] = frozenset()
    pending: frozenset[Key] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Nothing to do."""
        return not (self.clear or self.create or self.prune)

    @property
    def keys(self) -> frozenset[Key]:
        """Every key that is touched."""
        return frozenset(
            key for batches in (self.clear, self.create, self.prune) for part in batches for key in part
        )


def make_plan(
    wanted: Mapping[Key, Item], present: Mapping[Key, Present], scope: Collection[Key], updatable: Updatable
) -> Plan:
    """What turns ``present`` into ``wanted`` as far as ``scope`` goes; each batch is in the order of ``scope``.

    A key of ``scope`` that is not ``wanted`` goes; one outside of ``scope`` is left as it is, and only counts as
    existing or not. Everything that exists and requires a key of ``scope`` must be in ``scope`` too.
    """
    reach = dict.fromkeys(scope)
    pending = _pending(wanted, present, reach)
    replaced, updates, creates = _changes(wanted, present, reach, pending, updatable)
    gone = [key for key in reach if key in present and key not in wanted]
    clear = _with_dependents(replaced, present, reach)
    creates |= {key for key in clear if key in wanted and key not in pending}
    updates -= clear
    built = [key for key in reach if key in creates or key in updates]
    wanted_needs = {key: wanted[key].requires for key in built}
    present_needs = {key: _needs(present[key]) for key in reach if key in present}
    late = [key for key in gone if key not in clear]
    return Plan(
        clear=_reversed(levels([key for key in reach if key in clear], present_needs)),
        create=levels(built, wanted_needs),
        prune=_reversed(levels(late, present_needs)),
        update=frozenset(updates),
        pending=frozenset(pending),
    )


def _pending(
    wanted: Mapping[Key, Item], present: Mapping[Key, Present], reach: Mapping[Key, None]
) -> set[Key]:
    """Keys that cannot be made now: a requirement will not be there, or is pending itself."""
    pending: set[Key] = set()
    candidates = [key for key in reach if key in wanted]
    changed = True
    while changed:
        before = len(pending)
        for key in candidates:
            if key not in pending and any(
                each in pending or not _will_exist(each, wanted, present, reach)
                for each in wanted[key].requires
            ):
                pending.add(key)
        changed = len(pending) != before
    return pending


def _will_exist(
    key: Key, wanted: Mapping[Key, Item], present: Mapping[Key, Present], reach: Mapping[Key, None]
) -> bool:
    return key in wanted if key in reach else key in present


def _changes(
    wanted: Mapping[Key, Item],
    present: Mapping[Key, Present],
    reach: Mapping[Key, None],
    pending: Collection[Key],
    updatable: Updatable,
) -> tuple[set[Key], set[Key], set[Key]]:
    """Keys to replace, to update and to create."""
    replaced: set[Key] = set()
    updates: set[Key] = set()
    creates: set[Key] = set()
    for key in reach:
        item = wanted.get(key)
        if item is None:
            continue
        there = present.get(key)
        if key in pending:
            if there is not None:
                replaced.add(key)
        elif there is None:
            creates.add(key)
        elif there.item != item:
            in_place = there.item is not None and updatable(there.item, item)
            (updates if in_place else replaced).add(key)
    return replaced, updates, creates


def _with_dependents(roots: set[Key], present: Mapping[Key, Present], reach: Mapping[Key, None]) -> set[Key]:
    """``roots`` and everything that exists on top of them."""
    if not roots:
        return set()
    dependents: dict[Key, list[Key]] = {}
    for key in reach:
        if key in present:
            for each in _needs(present[key]):
                dependents.setdefault(each, []).append(key)
    found = set(roots)
    unvisited = list(roots)
    while unvisited:
        for key in dependents.get(unvisited.pop(), ()):
            if key not in found:
                found.add(key)
                unvisited.append(key)
    return found


def _needs(there: Present) -> tuple[Key, ...]:
    return there.item.requires if there.item is not None else ()


def _reversed(batches: Batches) -> Batches:
    return tuple(reversed(batches))
