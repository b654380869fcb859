"""One lane per connection: its calls run one after the other, those of other connections beside it (reference §3.4).

A path that passes the same process several times has another id, so another lane, at each pass.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nsm.model.errors import Code, NsmError


@dataclass(slots=True)
class _Lane:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class Lanes:
    """First come, first served, by key; nothing remains of a lane that nobody uses."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def __len__(self) -> int:
        """How many are in use."""
        return len(self._lanes)

    @asynccontextmanager
    async def turn(self, key: str, deadline: float) -> AsyncIterator[None]:
        """Wait for our turn and keep it for the block.

        Raises:
            NsmError: DEADLINE_EXCEEDED when it does not come before ``deadline`` (loop time).
        """
        lane = self._lanes.setdefault(key, _Lane())
        lane.users += 1
        try:
            if lane.users == 1:
                await lane.lock.acquire()  # nobody else is there: taken at once
            else:
                await _in_time(lane.lock, key, deadline)
            try:
                yield
            finally:
                lane.lock.release()
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[key]


async def _in_time(lock: asyncio.Lock, key: str, deadline: float) -> None:
    try:
        async with asyncio.timeout_at(deadline):
            await lock.acquire()
    except TimeoutError as error:
        text = f"connection {key} was busy with an earlier call until the deadline"
        raise NsmError(Code.DEADLINE_EXCEEDED, text) from error
