"""One inbound RPC as its handler sees it."""

from collections.abc import Iterable
from typing import Any

from nsm.model.errors import Code, NsmError
from nsm.transport.descriptors import url_of
from nsm.transport.peer import Peer
from nsm.transport.tunnel import Tunnel

WITHOUT_DEADLINE: float = 15.0
"""Seconds to wait for a descriptor when the caller set no deadline."""


class Call:
    """``peer`` is who calls, ``metadata`` the ASCII pairs as received."""

    def __init__(self, context: Any, tunnel: Tunnel, peer: Peer) -> None:
        self._context = context
        self._tunnel = tunnel
        self._answer_metadata: tuple[tuple[str, str], ...] = ()
        self.peer = peer
        self.metadata: tuple[tuple[str, str], ...] = tuple(
            (key, value) for key, value in (context.invocation_metadata() or ()) if isinstance(value, str)
        )

    def remaining(self) -> float | None:
        """Seconds until the caller's deadline, ``None`` without one."""
        left = self._context.time_remaining()
        return None if left is None else max(0.0, float(left))

    def send_metadata(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Initial (header) metadata of the answer."""
        self._answer_metadata = (*self._answer_metadata, *pairs)

    @property
    def answer_metadata(self) -> tuple[tuple[str, str], ...]:
        """What ``send_metadata`` was given."""
        return self._answer_metadata

    async def receive_fd(self, url: str) -> int:
        """A descriptor the caller owns for ``inode://dev/ino``, waited for until the RPC's deadline.

        Raises:
            NsmError: FAILED_PRECONDITION over TCP, DEADLINE_EXCEEDED when it does not come.
        """
        self._needs_unix()
        left = self.remaining()
        return await self._tunnel.descriptors.take(url, WITHOUT_DEADLINE if left is None else left)

    def send_fd(self, fd: int) -> str:
        """Queue a duplicate of ``fd`` for the answer; its ``inode://`` URL. NsmError FAILED_PRECONDITION over TCP."""
        self._needs_unix()
        self._tunnel.send_fd(fd)
        return url_of(fd)

    def _needs_unix(self) -> None:
        if not self._tunnel.passes_fds:
            message = f"no descriptors cross {self.peer.address}: use the unix socket"
            raise NsmError(Code.FAILED_PRECONDITION, message, field="inodeURL")
