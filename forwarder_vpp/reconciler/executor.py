"""Carries a plan out: batch after batch, each batch at once, and remembers what exists by then."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final

import structlog

from forwarder_vpp.dataplane.contract.items import Descriptor, Item, Key, Present, carrier
from forwarder_vpp.planner.plan import Batches, Plan
from nsm.model.errors import Code, NsmError

_LOG: Final = structlog.get_logger(__name__)

Failures = dict[Key, NsmError]


@dataclass(frozen=True, slots=True)
class _Handles:
    present: Mapping[Key, Present]

    def handle(self, key: Key) -> object:
        """The handle of ``key``; KeyError if it does not exist."""
        return self.present[key].handle


class Executor:
    """One dataplane's objects: ``present`` is what exists, kept current by every write.

    ``carrying``: kinds of objects that go so fast that what they carry need not go before.
    """

    def __init__(
        self, descriptors: Sequence[Descriptor[Any]], carrying: AbstractSet[str] = frozenset()
    ) -> None:
        self._carrying = carrying
        self._descriptors = {each.kind: each for each in descriptors}
        if len(self._descriptors) != len(descriptors):
            raise ValueError("expected one descriptor of each kind")
        self.present: dict[Key, Present] = {}
        self._handles = _Handles(self.present)
        self._last_facts: dict[Key, Item] = {}
        self.writes = 0
        """Objects created, updated and deleted so far."""

    def updatable(self, old: Item, new: Item) -> bool:
        """Whether ``old`` becomes ``new`` in place; both have the same key."""
        return type(old) is type(new) and self._descriptors[new.key.kind].updatable(old, new)

    async def dump(self, wanted: Mapping[Key, Item]) -> NsmError | None:
        """Read everything anew. A kind that cannot be read stays as known; its error is the result."""
        kinds: dict[str, dict[Key, Item]] = {kind: {} for kind in self._descriptors}
        for key, item in wanted.items():
            kinds[key.kind][key] = item
        errors: list[NsmError] = []
        for kind, items in kinds.items():
            try:
                found = await _no_surprise(self._descriptors[kind].dump(items), f"reading all of {kind}")
            except NsmError as error:
                _LOG.warning("dump.failed", kind=kind, reason=str(error))
                errors.append(error)
                continue
            for key in [key for key in self.present if key.kind == kind]:
                del self.present[key]
            self.present.update((each.key, each) for each in found)
            self._last_facts.update((key, items[key]) for key in items if key in self.present)
        return errors[0] if errors else None

    async def build(
        self, plan: Plan, wanted: Mapping[Key, Item], release: Callable[[Key], None], *, strict: bool
    ) -> Failures:
        """Clear and create. ``strict``: stop after the first batch that fails; else go on with what still can be."""
        failures: Failures = {}
        await self._delete(plan.clear, failures, release, strict=strict)
        for batch in plan.create:
            if failures and strict:
                break
            await self._batch([self._make(key, wanted[key], plan, failures, release) for key in batch])
        return failures

    async def prune(self, batches: Batches, release: Callable[[Key], None]) -> Failures:
        """Delete what nobody wants, as far as it can be; what another object of these takes along costs nothing."""
        failures: Failures = {}
        carriers = self._carriers({key for batch in batches for key in batch})
        by_hand = tuple(tuple(key for key in batch if key not in carriers) for batch in batches)
        await self._delete(by_hand, failures, release, strict=False)
        for key, carrier_key in carriers.items():
            if carrier_key not in self.present:
                self._forget(key, release)
        await self._batch([self._remove(key, failures, release) for key in carriers if key in self.present])
        return failures

    async def _delete(
        self, batches: Batches, failures: Failures, release: Callable[[Key], None], *, strict: bool
    ) -> None:
        for batch in batches:
            if failures and strict:
                return
            await self._batch([self._remove(key, failures, release) for key in batch])

    async def _batch(self, steps: Sequence[Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(_as_coroutine(step))

    async def _remove(self, key: Key, failures: Failures, release: Callable[[Key], None]) -> None:
        there = self.present[key]
        descriptor = self._descriptors[key.kind]
        self.writes += 1
        try:
            await _no_surprise(
                descriptor.delete(self._facts(key), there.handle, self._handles), f"deleting {key}"
            )
        except NsmError as error:
            failures[key] = error
            return
        self._forget(key, release)

    def _forget(self, key: Key, release: Callable[[Key], None]) -> None:
        self.present.pop(key, None)
        self._last_facts.pop(key, None)
        release(key)

    def _facts(self, key: Key) -> Item | None:
        return self.present[key].item or self._last_facts.get(key)

    def _carriers(self, going: AbstractSet[Key]) -> dict[Key, Key]:
        """Of ``going`` those that go along with another one of it, by which."""
        found: dict[Key, Key] = {}
        for key in going:
            by = carrier(self._facts(key))
            if by is not None and by in going and by.kind in self._carrying:
                found[key] = by
        return found

    async def _make(
        self, key: Key, item: Item, plan: Plan, failures: Failures, release: Callable[[Key], None]
    ) -> None:
        missing = [each for each in item.requires if each not in self.present]
        if missing:
            failures[key] = NsmError(Code.FAILED_PRECONDITION, f"{key} waits for {missing[0]}")
        if key in failures:
            return
        there = self.present.get(key) if key in plan.update else None
        if there is None and key in self.present:
            return  # what had to go before could not; its failure is noted
        descriptor = self._descriptors[key.kind]
        self.writes += 1
        try:
            if there is None:
                handle = await _no_surprise(descriptor.create(item, self._handles), f"creating {key}")
            else:
                change = descriptor.update(there.item, item, there.handle, self._handles)
                handle = await _no_surprise(change, f"updating {key}")
        except NsmError as error:
            failures[key] = error
            if there is not None:
                self.present[key] = Present(key, None, there.handle, there.owner)
                self._last_facts[key] = item
            return
        self.present[key] = Present(key, item, handle, there.owner if there else "")
        release(key)


async def _as_coroutine(step: Awaitable[None]) -> None:
    await step


async def _no_surprise(work: Awaitable[Any], what: str) -> Any:
    """Any failure as NsmError: a fault of ours is logged with its traceback and must not end the others' work."""
    try:
        return await work
    except NsmError:
        raise
    except Exception as error:
        _LOG.exception("step.broke", step=what)
        raise NsmError(Code.INTERNAL, f"{what}: {type(error).__name__}: {error}") from error
