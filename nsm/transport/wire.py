"""A non-blocking socket whose bytes may carry descriptors (grpcfd, reference §4)."""

import array
import socket
from typing import Final

from nsm.transport.descriptors import Outbox, Received

READ_SIZE: Final = 65536
FDS_PER_SEND: Final = 64
"""What the Go reader has control space for."""
_CONTROL_SPACE: Final = socket.CMSG_SPACE(253 * array.array("i").itemsize)
"""The kernel's most per message (SCM_MAX_FD)."""
_CLOSE_ON_EXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_LOST: Final = int(socket.MSG_CTRUNC)
"""Plain numbers: the operators of an enum cost more than the system call."""


class DescriptorsLostError(OSError):
    """The kernel had to drop descriptors (MSG_CTRUNC): out of file descriptors."""


class Wire:
    """The bytes and descriptors of one connection; descriptors are stored before the bytes are handed on."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.passes_fds: Final = sock.family == socket.AF_UNIX
        self.received: Final = Received()
        self.outbox: Final = Outbox()

    def fileno(self) -> int:
        """Of the socket, -1 once closed."""
        return self._sock.fileno()

    def receive(self) -> tuple[bytes, bool]:
        """Some bytes (empty = end of stream) and whether descriptors came with them.

        Raises:
            BlockingIOError: nothing there yet.
            DescriptorsLostError: the connection is of no use any more.
        """
        if not self.passes_fds:
            return self._sock.recv(READ_SIZE), False
        data, ancillary, flags, _ = self._sock.recvmsg(READ_SIZE, _CONTROL_SPACE, _CLOSE_ON_EXEC)
        if ancillary:
            self.received.add(_descriptors(ancillary))
        if flags & _LOST:
            raise DescriptorsLostError("the kernel dropped descriptors of the peer (open file limit?)")
        return data, bool(ancillary)

    def send(self, data: memoryview) -> int:
        """Send some of ``data``, at least one byte; waiting descriptors leave first, 64 with a byte each.

        Raises:
            BlockingIOError: no byte could be sent.
        """
        sent = 0
        while self.outbox and sent < len(data):
            fds = self.outbox.first(FDS_PER_SEND)
            try:
                sent += self._sock.sendmsg(
                    [data[sent : sent + 1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
                )
            except BlockingIOError:
                if sent:
                    return sent
                raise
            self.outbox.sent(len(fds))
        if sent == len(data):
            return sent
        try:
            return sent + self._sock.send(data[sent:] if sent else data)
        except BlockingIOError:
            if sent:
                return sent
            raise

    def end(self) -> None:
        """No more bytes from us."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer is gone already
            return

    def close(self) -> None:
        """Close the socket and every descriptor that belongs to it."""
        self._sock.close()
        self.received.close()
        self.outbox.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)
