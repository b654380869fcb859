"""The plaintext hop between a pump and grpcio, inside this process.

Its unix sockets have names only for the moment in which they are needed, in a directory of mode 0700: nothing stays
behind when a process is killed, and no other process can knock later.
"""

import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from nsm.transport.handshake import readable

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


@contextmanager
def private_path() -> Iterator[str]:
    """A name for a socket in a new directory of mode 0700; both go with the block."""
    directory = Path(tempfile.mkdtemp(prefix="nsm-"))
    path = directory / "s"
    try:
        yield str(path)
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        directory.rmdir()


@contextmanager
def pinned(path: str) -> Iterator[str]:
    """Another name of a socket that works inside this process for as long as the block, even when unlinked."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


class Doorstep:
    """A private socket that accepts exactly one connection, of this very process."""

    def __init__(self, path: str) -> None:
        self.path: Final = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._sock.bind(path)
        self._sock.listen(1)

    async def accept(self) -> socket.socket:
        """The connection of our own process; others are turned away."""
        while True:
            await readable(self._sock)
            try:
                accepted, _ = self._sock.accept()
            except BlockingIOError:
                continue
            if pid_of(accepted) == os.getpid():
                return accepted
            accepted.close()

    def close(self) -> None:
        """Nobody can come any more."""
        self._sock.close()


@asynccontextmanager
async def doorstep() -> AsyncIterator[Doorstep]:
    """A doorstep for the time of the block."""
    with private_path() as path:
        door = Doorstep(path)
        try:
            yield door
        finally:
            door.close()


def pid_of(sock: socket.socket) -> int:
    """The process at the other end of a unix socket, when it connected; 0 = in another pid namespace."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])
