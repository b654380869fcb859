"""Keys in flight: a pass that touches an object keeps it until that object is done."""

import asyncio
from collections.abc import Iterable

from forwarder_vpp.dataplane.contract.items import Key


class Reservations:
    """Who waits holds nothing, so nobody waits for each other in a circle."""

    def __init__(self) -> None:
        self._busy: dict[Key, asyncio.Future[None]] = {}

    async def free(self, keys: Iterable[Key]) -> None:
        """Return at a moment when none of ``keys`` is reserved."""
        scope = tuple(keys)
        while busy := [future for key in scope if (future := self._busy.get(key))]:
            await asyncio.wait(busy)

    async def all_free(self) -> None:
        """Return at a moment when nothing is reserved."""
        while self._busy:
            await asyncio.wait(tuple(self._busy.values()))

    def take(self, keys: Iterable[Key]) -> None:
        """Reserve keys that are free."""
        loop = asyncio.get_running_loop()
        for key in keys:
            assert key not in self._busy, key
            self._busy[key] = loop.create_future()

    def release(self, key: Key) -> None:
        """Give a key back; one that is free already is fine."""
        future = self._busy.pop(key, None)
        if future is not None:
            future.set_result(None)
