"""Who watches what: each watcher gets every change that its query matches, the newest state of an entry once.

A watcher that does not read costs one pending change an entry, not one a change.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from typing import Generic, TypeVar

from nsm.model.errors import NsmError

T = TypeVar("T")


class Watcher(Generic[T]):
    """The changes one watcher has not read yet, in order of their first appearance; ``None`` = end of the stream."""

    def __init__(self, wanted: Callable[[T], bool]) -> None:
        self._wanted = wanted
        self._pending: dict[str, tuple[T, bool]] = {}
        self._news = asyncio.Event()
        self._end: NsmError | None = None
        self._ended = False

    def put(self, name: str, entry: T, *, deleted: bool) -> None:
        """A change of the entry of that name."""
        if self._wanted(entry):
            self._pending.pop(name, None)
            self._pending[name] = (entry, deleted)
            self._news.set()

    def end(self, error: NsmError | None) -> None:
        """Nothing follows; the reader gets what is pending, then ``error``."""
        self._end, self._ended = error, True
        self._news.set()

    async def changes(self) -> AsyncIterator[tuple[T, bool]]:
        """(entry, deleted) of each change."""
        while True:
            while self._pending:
                yield self._pending.pop(next(iter(self._pending)))
            if self._ended:
                if self._end is not None:
                    raise NsmError(self._end.code, self._end.message)  # an exception of this stream's own
                return
            self._news.clear()
            await self._news.wait()


class Hub(Generic[T]):
    """All watchers of one kind of entry."""

    def __init__(self) -> None:
        self._watchers: set[Watcher[T]] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    def publish(self, name: str, entry: T, *, deleted: bool = False) -> None:
        """Tell every watcher whose query matches."""
        for watcher in self._watchers:
            watcher.put(name, entry, deleted=deleted)

    def end(self, error: NsmError | None) -> None:
        """End every stream there is."""
        for watcher in self._watchers:
            watcher.end(error)

    async def watch(
        self, current: Iterable[tuple[str, T]], wanted: Callable[[T], bool]
    ) -> AsyncGenerator[tuple[T, bool], None]:
        """What is wanted of ``current`` (name, entry), then every change. Nothing is lost in between."""
        watcher = Watcher(wanted)
        for name, entry in current:
            watcher.put(name, entry, deleted=False)
        self._watchers.add(watcher)
        try:
            async for change in watcher.changes():
                yield change
        finally:
            self._watchers.discard(watcher)
