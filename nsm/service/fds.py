"""Descriptors of namespaces and sockets beside a call: ``file:///path`` here, ``inode://dev/ino`` on the wire.

The parameter ``inodeURL`` of a mechanism names the object; the transport carries its descriptor (reference §4.4).
Descriptors are kept as short as possible, because one keeps a dead workload's namespace alive: those that
arrive during a call are closed when the call ends.

A path that a peer names is never opened: it would lead to another object here, or to one that is not the peer's.
"""

import os
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.mechanism import INODE_URL, Mechanism

FILE: Final = "file://"
INODE: Final = "inode://"
FIELD: Final = f"mechanism.parameters.{INODE_URL}"


def open_file(url: str) -> int:
    """An O_PATH descriptor of ``file:///path``, links followed.

    Raises:
        NsmError: FAILED_PRECONDITION when the path leads nowhere (any more).
    """
    path = url.removeprefix(FILE)
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise NsmError(
            Code.FAILED_PRECONDITION,
            f"expected a path that leads to a namespace, got {url!r} ({error})",
            field=FIELD,
        ) from error


def inode_url(fd: int) -> str:
    """``inode://<st_dev>/<st_ino>``, both decimal, of the object itself (trap 23)."""
    status = os.fstat(fd)
    return f"{INODE}{status.st_dev}/{status.st_ino}"


def file_url(fd: int) -> str:
    """A URL this process can open the descriptor's object by for as long as the descriptor is open."""
    return f"{FILE}/proc/self/fd/{fd}"


class Box:
    """Descriptors that live together: of one call, or of one connection."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def keep(self, fd: int) -> str:
        """Take over a descriptor; its file URL."""
        self._fds.append(fd)
        return file_url(fd)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._fds)

    def close(self) -> None:
        """Close all of them."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)


CURRENT: Final[ContextVar[Box | None]] = ContextVar("descriptors_of_the_call", default=None)
"""The box of the inbound call that is being served: what the next hop sends back goes in there too, so that it
lives until our own answer has left and no longer. ``None`` = no inbound call, a client."""


Receive = Callable[[str], Awaitable[int]]
"""``inode://dev/ino`` to a descriptor that the caller owns."""


class Arrivals:
    """Turns the ``inode://`` of one call into files in ``box``; the same inode is asked for once.

    ``passes_fds``: false over TCP, where a path is what some hop has left in there: it is left out.
    """

    def __init__(self, receive: Receive, box: Box, *, passes_fds: bool = True) -> None:
        self._receive = receive
        self._box = box
        self._passes_fds = passes_fds
        self._files: dict[str, str] = {}

    async def take(
        self, connection: Connection, preferences: tuple[Mechanism, ...]
    ) -> tuple[Connection, tuple[Mechanism, ...]]:
        """Both with every ``inode://`` replaced.

        Raises:
            NsmError: those of the transport; INVALID_ARGUMENT for a path.
        """
        mechanisms = [*preferences, *([connection.mechanism] if connection.mechanism else [])]
        urls = dict.fromkeys(one.get(INODE_URL) for one in mechanisms)
        for url in urls:
            if url.startswith(FILE) and self._passes_fds:
                raise invalid(FIELD, "inode://<device>/<inode> and its descriptor", url[:200])
            if url.startswith(INODE):
                self._files[url] = self._box.keep(await self._receive(url))
        if not any(urls):
            return connection, preferences
        mechanism = connection.mechanism
        if mechanism is not None:
            connection = replace(connection, mechanism=self._with_file(mechanism))
        return connection, tuple(self._with_file(one) for one in preferences)

    def _with_file(self, mechanism: Mechanism) -> Mechanism:
        url = mechanism.get(INODE_URL)
        if url.startswith(FILE):
            return mechanism.without(INODE_URL)
        file = self._files.get(url)
        return mechanism if file is None else mechanism.having(**{INODE_URL: file})


class Departures:
    """The descriptors of one call that leaves: opened for the time of the ``with`` block."""

    def __init__(self, *, passes_fds: bool, may_miss: bool = False) -> None:
        """``passes_fds``: false over TCP, where no URL of either kind means anything to the peer.

        ``may_miss``: a file that is gone is left out (a Close must not fail for it) instead of refused.
        """
        self._passes_fds = passes_fds
        self._may_miss = may_miss
        self._files: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self.fds: list[int] = []

    def __enter__(self) -> Self:
        """Nothing open yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """All closed."""
        fds, self.fds = self.fds, []
        for fd in fds:
            os.close(fd)

    def connection(self, connection: Connection) -> Connection:
        """The connection as it goes on the wire."""
        known = connection.mechanism
        sent = None if known is None else self.mechanism(known)
        return connection if sent is known else replace(connection, mechanism=sent)

    def mechanisms(self, mechanisms: Iterable[Mechanism]) -> tuple[Mechanism, ...]:
        """The preferences as they go on the wire."""
        return tuple(self.mechanism(one) for one in mechanisms)

    def mechanism(self, mechanism: Mechanism) -> Mechanism:
        """With ``inode://`` for a file whose descriptor leaves.

        An ``inode://`` that nothing stands behind is left out: the peer would wait for its descriptor in vain.
        """
        url = mechanism.get(INODE_URL)
        if url.startswith(FILE) and self._passes_fds:
            try:
                return mechanism.having(**{INODE_URL: self._inode(url)})
            except NsmError:
                if not self._may_miss:
                    raise
        return mechanism.without(INODE_URL) if url.startswith((FILE, INODE)) else mechanism

    def file(self, url: str) -> str | None:
        """The file an ``inode://`` of the answer stands for, if it is one that left."""
        return self._files.get(url)

    def _inode(self, url: str) -> str:
        known = self._urls.get(url)
        if known is not None:
            return known
        fd = open_file(url)
        inode = inode_url(fd)
        self._urls[url] = inode
        if inode in self._files:
            os.close(fd)
        else:
            self._files[inode] = url
            self.fds.append(fd)
        return inode
