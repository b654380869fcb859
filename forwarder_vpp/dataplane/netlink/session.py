"""A rtnetlink socket: requests one after another, each acknowledged. Blocking; belongs on a worker thread."""

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.wire import HEADER, Message
from nsm.model.errors import Code, NsmError

NETLINK_GENERIC: Final = 16
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP, _LISTEN_ALL_NSID, _EXT_ACK, _STRICT_CHECK = 1, 8, 11, 12
_RECEIVE: Final = 1 << 18
_DUMP_TRIES: Final = 5
_ERROR: Final = 4

_CODES: Final = {
    errno.EEXIST: Code.ALREADY_EXISTS,
    errno.ENODEV: Code.NOT_FOUND,
    errno.ENOENT: Code.NOT_FOUND,
    errno.ESRCH: Code.NOT_FOUND,
    errno.EINVAL: Code.INVALID_ARGUMENT,
    errno.ERANGE: Code.INVALID_ARGUMENT,
    errno.EADDRINUSE: Code.RESOURCE_EXHAUSTED,
    errno.ENOBUFS: Code.RESOURCE_EXHAUSTED,
    errno.ENOMEM: Code.RESOURCE_EXHAUSTED,
    errno.EOPNOTSUPP: Code.FAILED_PRECONDITION,
    errno.EPERM: Code.FAILED_PRECONDITION,
}
GONE: Final = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL})
"""What the kernel says when the thing to remove is not there."""


class NetlinkError(NsmError):
    """The kernel refused a message: its errno, and its own words where it gave some."""

    def __init__(self, number: int, doing: str, words: str = "") -> None:
        self.errno = number
        because = f": {words}" if words else ""
        name = errno.errorcode.get(number, str(number))
        text = f"the kernel refused {doing}: {name} ({os.strerror(number)}){because}"
        super().__init__(_CODES.get(number, Code.INTERNAL), text)


class Session:
    """A socket into the namespace the calling thread was in when it was made.

    ``writes`` counts the messages that change something. Every method may raise NetlinkError.
    """

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._sequence = 0
        self.writes = 0
        try:
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def listen(self, *groups: int) -> socket.socket:
        """Join multicast groups, of every namespace that has an id here; the socket, to be watched."""
        self._socket.setsockopt(_SOL_NETLINK, _LISTEN_ALL_NSID, 1)
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        self._socket.setblocking(False)
        return self._socket

    def change(self, message: Message, doing: str) -> None:
        """Send ``message`` and await its acknowledgement; ``doing`` = what it does, for the error."""
        self.writes += 1
        self.ask(message, doing)

    def change_all(
        self, messages: Iterable[tuple[Message, str]], ignore: frozenset[int] = frozenset()
    ) -> None:
        """Send messages in one buffer, await every acknowledgement; the first refusal is raised, the rest were sent.

        A refusal whose errno is in ``ignore`` counts as done.
        """
        waiting: dict[int, str] = {}
        buffer = bytearray()
        for message, doing in messages:
            self._sequence += 1
            waiting[self._sequence] = doing
            buffer += message.packed(self._sequence)
        if not waiting:
            return
        self.writes += len(waiting)
        self._socket.send(buffer)
        failed: NetlinkError | None = None
        while waiting:
            for kind, flags, sequence, body in self._received():
                if kind != wire.NLMSG_ERROR or sequence not in waiting:
                    continue
                doing = waiting.pop(sequence)
                error = _refusal(flags, body, doing)
                if error is not None and error.errno not in ignore:
                    failed = failed or error
        if failed is not None:
            raise failed

    def ask(self, message: Message, doing: str) -> list[bytes]:
        """Send ``message``; the bodies of what came back before the acknowledgement."""
        self._sequence += 1
        self._socket.send(message.packed(self._sequence))
        answers: list[bytes] = []
        while True:
            for kind, flags, sequence, body in self._received():
                if sequence != self._sequence:
                    continue
                if kind == wire.NLMSG_ERROR:
                    error = _refusal(flags, body, doing)
                    if error is not None:
                        raise error
                    return answers
                answers.append(body)

    def dump(self, message: Message, doing: str) -> list[bytes]:
        """Every object the kernel lists in answer; asked again if the list changed meanwhile."""
        for _ in range(_DUMP_TRIES):
            answers = self._dump_once(message, doing)
            if answers is not None:
                return answers
        raise NsmError(Code.UNAVAILABLE, f"{doing}: the kernel's list kept changing")

    def _dump_once(self, message: Message, doing: str) -> list[bytes] | None:
        self._sequence += 1
        flags = message.flags | wire.NLM_F_REQUEST | wire.NLM_F_DUMP
        header = HEADER.pack(HEADER.size + len(message.body), message.type, flags, self._sequence, 0)
        self._socket.send(header + message.body)
        answers: list[bytes] = []
        interrupted = False
        while True:
            for kind, got, sequence, body in self._received():
                if sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(got & wire.NLM_F_DUMP_INTR)
                if kind in {wire.NLMSG_ERROR, wire.NLMSG_DONE}:
                    error = _refusal(got, body, doing)
                    if error is not None:
                        raise error
                    return None if interrupted else answers
                answers.append(body)

    def _received(self) -> Iterator[tuple[int, int, int, bytes]]:
        return parsed(self._socket.recv(_RECEIVE))


def parsed(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message in one datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        size, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + HEADER.size : offset + size]
        offset += size + (-size % 4)


def _refusal(flags: int, body: bytes, doing: str) -> NetlinkError | None:
    number = -int.from_bytes(body[:_ERROR], "little" if wire.IS_LITTLE else "big", signed=True)
    if number == 0:
        return None
    words = ""
    if flags & wire.NLM_F_ACK_TLVS:
        request = HEADER.size
        if not flags & wire.NLM_F_CAPPED:
            request = HEADER.unpack_from(body, _ERROR)[0]
        start = _ERROR + request + (-request % 4)
        words = wire.string(wire.unpack(body[start:]), wire.NLMSGERR_ATTR_MSG)
    return NetlinkError(number, doing, words)
