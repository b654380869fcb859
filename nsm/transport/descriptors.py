"""Descriptors that arrived on one connection, by the inode they stand for (reference §4.3)."""

import asyncio
import os
import re
from collections.abc import Iterable
from typing import Final

from nsm.model.errors import Code, NsmError, invalid

_URL: Final = re.compile(r"inode://(\d{1,20})/(\d{1,20})")
LIMIT: Final = 4096
"""Descriptors kept for one connection; more are a peer that leaks."""


def parse_url(url: str) -> tuple[int, int]:
    """``inode://dev/ino`` as numbers. Raises NsmError INVALID_ARGUMENT for anything else."""
    match = _URL.fullmatch(url)
    if match is None:
        raise invalid("inodeURL", "inode://<device>/<inode> in decimal", url)
    return int(match[1]), int(match[2])


def url_of(fd: int) -> str:
    """The URL by which the peer asks for ``fd``."""
    status = os.fstat(fd)
    return f"inode://{status.st_dev}/{status.st_ino}"


class Descriptors:
    """Owns what arrived until ``close``; waiters get duplicates."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], int] = {}
        self._waiters: dict[tuple[int, int], list[asyncio.Future[int]]] = {}
        self._closed = False

    def add(self, fds: Iterable[int]) -> None:
        """Take these over; one whose inode is held already is closed."""
        for fd in fds:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino)
            if self._closed or key in self._held or len(self._held) >= LIMIT:
                os.close(fd)
                continue
            self._held[key] = fd
            for waiter in self._waiters.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(os.dup(fd))

    async def take(self, url: str, timeout: float) -> int:
        """A duplicate the caller owns, as soon as it is there; NsmError DEADLINE_EXCEEDED names the inode."""
        key = parse_url(url)
        if key in self._held:
            return os.dup(self._held[key])
        if self._closed:
            raise NsmError(Code.UNAVAILABLE, f"the connection ended before {url} arrived", field="inodeURL")
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(waiter)
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError:
            message = f"no descriptor for {url} arrived within {timeout:.1f} s: send it on this connection"
            raise NsmError(Code.DEADLINE_EXCEEDED, message, field="inodeURL") from None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                os.close(waiter.result())
            raise
        finally:
            waiters = self._waiters.get(key, [])
            if waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[key]

    def close(self) -> None:
        """Close everything; whoever waits is told."""
        self._closed = True
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(NsmError(Code.UNAVAILABLE, "the connection ended", field="inodeURL"))
        self._waiters.clear()
