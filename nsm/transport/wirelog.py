"""Every message of this process on the wire, one JSON line each, tokens taken out: ``NSM_WIRE_LOG`` (ADR 8).

Off, it costs nothing: callables and handlers are wrapped when they are made, or not at all. Several processes may
write to one file; a line is one write. Health and reflection are left out.
"""

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from nsm.model.errors import NsmError
from nsm.transport.descriptors import inode_url, key_of, parse_inode
from nsm.transport.redaction import clean, without_tokens
from nsm.transport.wire import FDS_PER_SEND, Wire
from nsm.wire.methods import FILES

Direction = Literal["in", "out"]

_INODE: Final = "inode://"
METHODS: Final = {
    f"/{service.full_name}/{method.name}": (method.input_type, method.output_type)
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
}


class WireLog:
    """Appends to one file, which only its owner may read."""

    def __init__(self, path: Path, name: str) -> None:
        """``name``: ours, in every line. Raises OSError when the file cannot be written."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._name = name
        self._calls = itertools.count(1)

    def exchange(self, direction: Direction, method: str, peer: str, wire: Wire) -> "Exchange":
        """A call that begins; ``peer`` is the SPIFFE ID at the other end."""
        head = {"at": self._name, "direction": direction, "call": next(self._calls), "method": method}
        return Exchange(self, {**head, "peer": peer}, wire, *METHODS[method])

    def write(self, line: Mapping[str, object]) -> None:
        """One line; a disk that is full is nobody's reason to fail a call."""
        text = json.dumps({"time": round(time.time(), 6), **line}, ensure_ascii=False)
        try:
            os.write(self._fd, f"{text}\n".encode(errors="replace"))
        except OSError:
            return

    def close(self) -> None:
        """No more lines."""
        os.close(self._fd)


class Exchange:
    """One call, message by message: ``request``, then each ``answer``, then ``end`` with the status."""

    def __init__(
        self, log: WireLog, head: Mapping[str, object], wire: Wire, request: Descriptor, answer: Descriptor
    ) -> None:
        self._log = log
        self._head = head
        self._wire = wire
        self._types = {"request": request, "answer": answer}
        self._is_over = False

    def sent(self, what: str, data: bytes, fds: list[str], **facts: object) -> None:
        """A message of ours, and the descriptors that leave before or with it."""
        self._write(what, self._read(what, data), fds, facts)

    def received(self, what: str, data: bytes, **facts: object) -> None:
        """A message of the peer; of the descriptors it names those that are there."""
        message = self._read(what, data)
        self._write(what, message, [url for url in _named(message) if self._holds(url)], facts)

    def end(self, status: str, reason: str = "") -> None:
        """Once; whatever comes later is no news."""
        if not self._is_over:
            self._is_over = True
            said = {"reason": without_tokens(reason)} if reason else {}
            self._log.write({**self._head, "what": "end", "status": status, **said})

    def failed(self, error: BaseException) -> None:
        """Ended by an exception of gRPC, or cancelled."""
        if isinstance(error, grpc.aio.AioRpcError):
            self.end(error.code().name, error.details() or "")
        else:
            self.end("CANCELLED", type(error).__name__)

    def _holds(self, url: str) -> bool:
        try:
            return self._wire.received.holds(parse_inode(url))
        except NsmError:
            return False

    def _read(self, what: str, data: bytes) -> Any:
        kind = self._types[what]
        try:
            message = GetMessageClass(kind).FromString(data)
        except DecodeError:
            return f"({len(data)} bytes that are no {kind.full_name})"
        return clean(MessageToDict(message, preserving_proto_field_name=True))

    def _write(self, what: str, message: Any, fds: list[str], facts: Mapping[str, object]) -> None:
        known = {name: value for name, value in facts.items() if value not in (None, {})}
        self._log.write(
            {**self._head, "what": what, **known, "message": message, **({"fds": fds} if fds else {})}
        )


def waiting(wire: Wire) -> list[str]:
    """The descriptors that leave with the next message on a connection."""
    return [inode_url(key_of(fd)) for fd in wire.outbox.first(FDS_PER_SEND)]


_current: WireLog | None = None


def start(path: Path, name: str) -> WireLog:
    """Record what is opened from now on in this process. Raises OSError when the file cannot be written."""
    global _current
    _current = WireLog(path, name)
    return _current


def stop() -> None:
    """Record what is opened from now on no more."""
    global _current
    log, _current = _current, None
    if log is not None:
        log.close()


def current() -> WireLog | None:
    """What is written to now, if anything is."""
    return _current


def _named(message: Any) -> Iterator[str]:
    """Every inode URL in it, once."""
    found: dict[str, None] = {}
    waiting = [message]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.startswith(_INODE):
            found[value] = None
    return iter(found)
