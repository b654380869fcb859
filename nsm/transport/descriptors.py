"""File descriptors of one connection: those that arrived, kept by inode, and those that wait to leave.

The peer names an object ``inode://<st_dev>/<st_ino>`` in a message and sends its descriptor beside the bytes,
before or after (reference §4.3). Everything here belongs to one connection and is closed with it.
"""

import asyncio
import os
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from nsm.model.errors import Code, NsmError, invalid

KEEP: Final = 20.0
"""Seconds a descriptor is kept that no call has let go of: longer than a Request may last (15 s). Every call sends its
descriptors again and lets go of them at its end, because a descriptor pins a dead workload's namespace."""
MAX_HELD: Final = 1024
"""Descriptors one peer may park at us at a time."""

_URL: Final = re.compile(r"inode://(\d{1,20})/(\d{1,20})", re.ASCII)
_log: Final = structlog.get_logger(__name__)

Key = tuple[int, int]


def parse_inode(url: str) -> Key:
    """``(st_dev, st_ino)`` of ``inode://dev/ino``, both decimal (trap 23).

    Raises:
        NsmError: INVALID_ARGUMENT.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise invalid("inodeURL", "inode://<device>/<inode>, both decimal", url[:200])
    return int(found[1]), int(found[2])


def key_of(fd: int) -> Key:
    """``(st_dev, st_ino)`` of the object behind a descriptor."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def inode_url(key: Key) -> str:
    """``inode://dev/ino``."""
    return f"inode://{key[0]}/{key[1]}"


@dataclass(slots=True)
class _Held:
    fd: int
    copies: deque[float]
    """``loop.time()`` of each time it was sent and not let go of, oldest first: calls at the same time may each have
    sent it. Each has an age of its own: the copy of a call that was cancelled before its headers left is let go of by
    nobody, and the calls that come after it must not keep it young."""


class Received:
    """Descriptors that arrived on one connection, by inode. Callers get dups and own those."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held: dict[Key, _Held] = {}
        self._waiters: dict[Key, list[asyncio.Future[int]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._has_overflowed = False

    def __len__(self) -> int:
        """How many are held."""
        return len(self._held)

    def add(self, fds: Iterable[int]) -> None:
        """Take over descriptors that came with some bytes; those already held are closed."""
        for fd in fds:
            self._add(fd)

    def holds(self, key: Key) -> bool:
        """Whether it is there now."""
        return key in self._held

    async def take(self, key: Key, timeout: float) -> int:
        """A dup of the descriptor, awaited for at most ``timeout`` seconds.

        Raises:
            NsmError: DEADLINE_EXCEEDED naming the inode; UNAVAILABLE when the connection ends first.
        """
        if self._is_closed:
            raise _lost(key)
        held = self._held.get(key)
        if held is not None:
            held.copies[-1] = self._loop.time()
            return os.dup(held.fd)
        waiter: asyncio.Future[int] = self._loop.create_future()
        self._waiters.setdefault(key, []).append(waiter)
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                return await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                os.close(waiter.result())  # it arrived in the same turn in which the caller gave up
            if not isinstance(error, TimeoutError):
                raise
            raise NsmError(
                Code.DEADLINE_EXCEEDED,
                f"the descriptor of {inode_url(key)} did not arrive on this connection within {timeout:.3g} s",
            ) from error
        finally:
            self._forget(key, waiter)

    def release(self, key: Key) -> None:
        """The call that brought a copy has ended, the youngest is its; the descriptor is closed with the last one."""
        held = self._held.get(key)
        if held is None:
            return
        held.copies.pop()
        if not held.copies:
            del self._held[key]
            os.close(held.fd)

    def close(self) -> None:
        """Close what is held; whoever waits is told that the connection is gone."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        held, self._held = self._held, {}
        for one in held.values():
            os.close(one.fd)
        waiting, self._waiters = self._waiters, {}
        for key, waiters in waiting.items():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(_lost(key))

    def _add(self, fd: int) -> None:
        key = key_of(fd)
        known = self._held.get(key)
        if known is not None:
            known.copies.append(self._loop.time())
            os.close(fd)
            return
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(os.dup(fd))
        if self._is_closed or len(self._held) >= MAX_HELD:
            os.close(fd)
            if not self._is_closed and not self._has_overflowed:
                self._has_overflowed = True
                _log.warning("transport.descriptors.overflow", limit=MAX_HELD)
            return
        self._held[key] = _Held(fd, deque((self._loop.time(),)))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEP, self._sweep)

    def _forget(self, key: Key, waiter: asyncio.Future[int]) -> None:
        """A waiter that left."""
        waiters = self._waiters.get(key)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[key]

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = self._loop.time() - KEEP
        for key, held in list(self._held.items()):
            while held.copies and held.copies[0] <= oldest:
                held.copies.popleft()
            if not held.copies:
                os.close(self._held.pop(key).fd)
        if self._held:
            soonest = min(held.copies[0] for held in self._held.values())
            self._sweeper = self._loop.call_at(soonest + KEEP, self._sweep)


class Outbox:
    """Descriptors that leave with the very next bytes of a connection (trap 24); it owns dups."""

    def __init__(self) -> None:
        self._fds: deque[int] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._fds)

    def put(self, fd: int) -> Key:
        """Queue a dup; ``(st_dev, st_ino)`` of its object.

        Raises:
            NsmError: UNAVAILABLE when the connection is gone; INVALID_ARGUMENT when ``fd`` is not open.
        """
        try:
            key = key_of(fd)
            if self._is_closed:
                raise _lost(key)
            self._fds.append(os.dup(fd))
        except OSError as error:
            raise invalid("fd", f"an open descriptor ({error.strerror})", fd) from error
        return key

    def first(self, count: int) -> list[int]:
        """Up to ``count`` from the front, still queued."""
        return [self._fds[at] for at in range(min(count, len(self._fds)))]

    def sent(self, count: int) -> None:
        """The first ``count`` have left: the kernel holds its own references now."""
        for _ in range(count):
            os.close(self._fds.popleft())

    def close(self) -> None:
        """Close what never left."""
        self._is_closed = True
        self.sent(len(self._fds))


def _lost(key: Key) -> NsmError:
    return NsmError(Code.UNAVAILABLE, f"the connection that {inode_url(key)} belongs to is closed")
