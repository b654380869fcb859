"""Closes that found their next hop away: made up for when it is back.

Whoever asked has been answered, or has gone, so the hop before the one that is away is the last that knows. What is
kept lives in memory, until the tokens of the path expire: nobody would accept the Close after that, and every hop
behind has then ended the connection by itself. A hop that dies as well therefore costs that time and no more.

When to try is told by the registration of the hop that is away, not by a clock.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.service.lanes import Lanes
from nsm.service.timers import Expiries

PATIENCE: Final = 5.0
"""Seconds one try may take."""

_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
_LOG: Final = structlog.get_logger()


class Closer(Protocol):
    """Closes at a hop, and changes nothing else; ``NextHop.leave`` is one."""

    async def __call__(self, url: str, connection: Connection, *, deadline: float) -> None:
        """``deadline`` is a time of the event loop; NsmError of the hop or the transport."""


Arrivals = Callable[[str], AsyncGenerator[str, None]]
"""The URL of the hop of a name: now, if it is registered, and each time it registers again."""


@dataclass(frozen=True, slots=True)
class _Late:
    """``name``: the registered name under which the next hop will be found."""

    name: str
    connection: Connection

    @property
    def key(self) -> str:
        """Our connection and the next hop's: after a reselect another hop may have the first one."""
        return f"{self.connection.id} {self.connection.route.following_id}"


class LateCloses:
    """What is still to be closed, on our segment; ``clock`` gives Unix seconds."""

    def __init__(self, close: Closer, arrivals: Arrivals, *, clock: Callable[[], float] = time.time) -> None:
        self._close = close
        self._arrivals = arrivals
        self._clock = clock
        self._late: dict[str, _Late] = {}
        self._expiries = Expiries(self._on_expired)
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._lanes = Lanes()

    def __len__(self) -> int:
        """How many are to be closed."""
        return len(self._late)

    def keep(self, name: str, connection: Connection) -> None:
        """Close ``connection`` at the hop of that name when it registers, if its tokens are good until then.

        A connection that never reached a next hop has nothing to close.
        """
        late = _Late(name, connection)
        left = _expiry(connection) - self._clock()
        if left <= 0 or not connection.route.following_id:
            return
        self._late[late.key] = late
        self._expiries.arm(late.key, asyncio.get_running_loop().time() + left)
        if name not in self._followers:
            follower = asyncio.create_task(self._follow(name), name=f"late closes at {name}")
            self._followers[name] = follower
            follower.add_done_callback(_report)
        _LOG.info("close.late", connection=connection.id, hop=name, seconds=round(left))

    @contextmanager
    def made_up_for(self, name: str, connection: Connection) -> Iterator[None]:
        """A Close inside the block whose hop is away succeeds, and is made up for later.

        One that got no answer in time is made up for as well, but raises: its caller has been told nothing.
        """
        try:
            yield
        except NsmError as error:
            if error.code in _AWAY:
                self.keep(name, connection)
            if error.code is not Code.UNAVAILABLE:
                raise
        except asyncio.CancelledError:
            self.keep(name, connection)
            raise

    @asynccontextmanager
    async def held(self, connection_id: str, deadline: float) -> AsyncIterator[None]:
        """Nothing of that connection is closed during the block, which is a Request for it.

        Raises:
            NsmError: DEADLINE_EXCEEDED when a Close under way does not end before ``deadline`` (loop time).
        """
        async with self._lanes.turn(connection_id, deadline):
            yield

    def answered(self, connection: Connection) -> None:
        """A Request was answered with ``connection``: it is wanted again, if it is still the one to be closed."""
        self._drop(f"{connection.id} {connection.route.following_id}")

    async def stop(self) -> None:
        """Give up."""
        self._expiries.clear()
        self._late.clear()
        followers, self._followers = tuple(self._followers.values()), {}
        for follower in followers:
            follower.cancel()
        if followers:
            await asyncio.wait(followers)

    async def _follow(self, name: str) -> None:
        async with aclosing(self._arrivals(name)) as urls:
            async for url in urls:
                await asyncio.gather(*(self._try(late, url) for late in self._at(name)))
                if not self._at(name):
                    del self._followers[name]
                    return

    def _at(self, name: str) -> tuple[_Late, ...]:
        return tuple(late for late in self._late.values() if late.name == name)

    async def _try(self, late: _Late, url: str) -> None:
        own = late.connection.id
        async with self._lanes.turn(own, float("inf")):
            if self._late.get(late.key) is not late:
                return  # wanted again, or expired, while this waited for its turn
            try:
                deadline = asyncio.get_running_loop().time() + PATIENCE
                await self._close(url, late.connection, deadline=deadline)
            except NsmError as error:
                if error.code in _AWAY:
                    _LOG.debug("close.still_late", connection=own, hop=late.name, reason=str(error))
                    return
                _LOG.warning("close.late_refused", connection=own, hop=late.name, reason=str(error))
            else:
                _LOG.info("close.made_up_for", connection=own, hop=late.name)
            if self._late.get(late.key) is late:
                del self._late[late.key]
                self._expiries.disarm(late.key)

    def _on_expired(self, key: str) -> None:
        _LOG.info("close.late_expired", connection=self._late[key].connection.id)
        self._drop(key)

    def _drop(self, key: str) -> None:
        late = self._late.pop(key, None)
        if late is None:
            return
        self._expiries.disarm(key)
        if not self._at(late.name) and (follower := self._followers.pop(late.name, None)) is not None:
            follower.cancel()


def _expiry(connection: Connection) -> float:
    """When the first token before ours expires, in Unix seconds; 0 where none says so. Ours is made anew."""
    before = connection.route.segments[: connection.route.index]
    return min((segment.expires / 1e9 for segment in before if segment.expires is not None), default=0.0)


def _report(task: asyncio.Task[None]) -> None:
    """A follower ends with its work or by being cancelled; anything else is our fault and must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("late_closes.died", task=task.get_name(), exc_info=error)
