"""Whose turn it is to have VPP stand still: whoever makes a ring goes before whoever removes one.

A Request waits for what it makes, nobody for what a Close has left behind. First come, first served would have a
Request that comes after two hundred Closes wait for four hundred removals, some 35 ms each.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

IN_A_ROW: Final = 4
"""After so many that make something one that removes something has its turn, or what is to go would pile up."""


class RingTurns:
    """One at a time."""

    def __init__(self) -> None:
        self._is_taken = False
        self._makers: deque[asyncio.Future[None]] = deque()
        self._removers: deque[asyncio.Future[None]] = deque()
        self._in_a_row = 0

    @contextlib.asynccontextmanager
    async def turn(self, *, makes: bool) -> AsyncIterator[None]:
        """Wait for one's turn and have it."""
        if self._is_taken:
            await self._called(self._makers if makes else self._removers)
        self._is_taken = True
        try:
            yield
        finally:
            self._next()

    async def _called(self, queue: deque[asyncio.Future[None]]) -> None:
        place = asyncio.get_running_loop().create_future()
        queue.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._next()  # it was called in the turn of the cancellation
            raise

    def _next(self) -> None:
        """Call the next one; the turn is taken until he has had it."""
        self._is_taken = False
        for queue in (self._makers, self._removers):
            while queue and queue[0].cancelled():
                queue.popleft()
        is_removers = bool(self._removers) and (not self._makers or self._in_a_row >= IN_A_ROW)
        queue = self._removers if is_removers else self._makers
        self._in_a_row = 0 if is_removers else self._in_a_row + 1
        if queue:
            self._is_taken = True
            queue.popleft().set_result(None)
