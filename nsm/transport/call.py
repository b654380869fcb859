"""One inbound RPC, as handlers see it."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from nsm.model.errors import Code, NsmError
from nsm.transport.descriptors import inode_url, parse_inode
from nsm.transport.peer import Peer
from nsm.transport.wire import Wire

FD_TIMEOUT: Final = 15.0
"""Seconds to wait for a descriptor when the caller gave no deadline."""
_MARGIN: Final = 0.95
"""Of the time left: the answer that says what is missing must still reach the caller."""


class Call:
    """``metadata``: the ASCII pairs as received. ``peer``: from the verified certificate."""

    def __init__(
        self, peer: Peer, wire: Wire, metadata: Iterable[tuple[str, Any]], remaining: float | None
    ) -> None:
        self.peer: Final = peer
        self.metadata: Final[tuple[tuple[str, str], ...]] = tuple(
            (str(key), value) for key, value in metadata if isinstance(value, str)
        )
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._deadline = None if remaining is None else self._loop.time() + remaining
        self.answer_metadata: list[tuple[str, str]] = []
        self.answer_fds: list[str] = []

    @property
    def wire(self) -> Wire:
        """The connection it came on."""
        return self._wire

    def remaining(self) -> float | None:
        """Seconds until the caller's deadline, at least 0; ``None`` = no deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def send_metadata(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Add to the initial (header) metadata of the answer; it leaves with the first message."""
        self.answer_metadata.extend(pairs)

    async def receive_fd(self, url: str, timeout: float | None = None) -> int:
        """A dup, owned by the caller, of the descriptor ``inode://dev/ino`` names; it may arrive later.

        Raises:
            NsmError: FAILED_PRECONDITION over TCP; DEADLINE_EXCEEDED naming the inode, after ``timeout`` seconds or
                within the RPC's deadline, 15 s where there is none; INVALID_ARGUMENT for another kind of URL.
        """
        key = parse_inode(url)
        self._check_fds(url)
        remaining = self.remaining()
        longest = FD_TIMEOUT if remaining is None else remaining * _MARGIN
        return await self._wire.received.take(key, longest if timeout is None else min(timeout, longest))

    def release_fd(self, url: str) -> None:
        """Let go of the descriptor that came with this call, taken or not; what ``receive_fd`` gave stays open."""
        self._wire.received.release(parse_inode(url))

    def send_fd(self, fd: int) -> str:
        """Queue a dup of ``fd`` for the answer; its ``inode://dev/ino``.

        Raises:
            NsmError: FAILED_PRECONDITION over TCP; UNAVAILABLE when the caller is gone.
        """
        self._check_fds(f"descriptor {fd}")
        url = inode_url(self._wire.outbox.put(fd))
        self.answer_fds.append(url)
        return url

    def _check_fds(self, what: str) -> None:
        if not self.peer.passes_fds:
            raise no_descriptors(what, self.peer.address)


def no_descriptors(what: str, address: str) -> NsmError:
    """FAILED_PRECONDITION: descriptors pass unix sockets only."""
    return NsmError(
        Code.FAILED_PRECONDITION, f"no descriptors here: {what} needs a unix socket, this is {address}"
    )
