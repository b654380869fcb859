"""The fake's API socket: handshake, message table, planned errors, planned death."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from struct import Struct
from typing import Any

from forwarder_vpp.dataplane.vpp.codec import DETAILS, REQUEST, Spec, reply_spec, spec_of
from forwarder_vpp.dataplane.vpp.frames import (
    ANSWER,
    ENTRY,
    HEADER,
    HELLO_ID,
    HELLO_REPLY,
    HELLO_REPLY_ID,
    Frames,
)
from forwarder_vpp.dataplane.vpp.messages.interface import InterfaceEvent, WantInterfaceEvents
from forwarder_vpp.dataplane.vpp.messages.wireguard import DEAD, PeerEvent, WantPeerEvents
from forwarder_vpp.dataplane.vpp.table import SPECS

from . import handlers, secure
from .model import Model, Refused

_REQUEST_HEAD = Struct("!HII")
_BYE = "sockclnt_delete_8ac76db6"
_BYE_REPLY = "sockclnt_delete_reply_8f38b1ee"
_FIRST_NUMBER = 17


@dataclass
class Plan:
    """What goes wrong: ``retval`` for the nth message of a name; death at the nth message of all."""

    failures: dict[tuple[str, int], int] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    die_at: int = 0


class FakeVpp:
    """``specs`` is what it claims to speak.

    ``received`` holds every decoded request in order, ``turns`` how many came at once each time.
    """

    def __init__(self, path: str, specs: Sequence[Spec] = SPECS) -> None:
        self.path = path
        self.model = Model()
        self.received: list[object] = []
        self.turns: list[int] = []
        self._plan = Plan()
        self._seen: Counter[str] = Counter()
        names = [*dict.fromkeys(spec.wire_name for spec in specs), _BYE, _BYE_REPLY]
        self._numbers = {name: number for number, name in enumerate(names, start=_FIRST_NUMBER)}
        self._requests = {self._numbers[spec.wire_name]: spec for spec in specs if spec.kind == REQUEST}
        self._writers: set[asyncio.StreamWriter] = set()
        self._wants_events: set[asyncio.StreamWriter] = set()
        self._wants_peers: dict[asyncio.StreamWriter, set[int]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # life

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def kill(self) -> None:
        """As SIGKILL: every connection drops, the state is lost, nobody listens."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        self.model = Model()
        if self._tasks:
            await asyncio.wait(self._tasks - {asyncio.current_task()})

    # plans

    def fail(self, message: str, retval: int, nth: int = 1) -> None:
        """Answer the ``nth`` ``message`` from now on with ``retval``, and do nothing."""
        self._plan.failures[message, self._seen[message] + nth] = retval

    def ignore(self, message: str) -> None:
        """Never answer this message."""
        self._plan.silent.add(message)

    def answer(self, message: str) -> None:
        """Answer it again."""
        self._plan.silent.discard(message)

    def die_at(self, call: int) -> None:
        """Die instead of answering the ``call``-th message from now on."""
        self._plan.die_at = len(self.received) + call

    def names(self) -> list[str]:
        """The names of the messages received."""
        return [spec_of(request).name for request in self.received]

    def mutations(self) -> list[object]:
        """The requests that change something."""
        return [request for request in self.received if not spec_of(request).reads]

    def emit(self, event: object) -> None:
        """Send an event to whoever asked for them."""
        spec = spec_of(event)
        body = ANSWER.pack(self._numbers[spec.wire_name], 0) + spec.layout.pack(event)
        for writer in self._wants_events:
            _send(writer, body)

    # the socket

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        frames = Frames()
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(4096):
                bodies = list(frames.feed(chunk))
                self.turns.append(len(bodies))
                for body in bodies:
                    if not await self._receive(writer, body):
                        break
        writer.transport.abort()
        self._writers.discard(writer)
        self._wants_events.discard(writer)
        self._wants_peers.pop(writer, None)
        self._tasks.discard(task)

    async def _receive(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        (number,) = Struct("!H").unpack_from(body)
        if number == HELLO_ID:
            _send(writer, self._hello_reply(body))
            return True
        _, _, context = _REQUEST_HEAD.unpack_from(body)
        if number == self._numbers[_BYE]:
            _send(writer, Struct("!HIi").pack(self._numbers[_BYE_REPLY], context, 0))
            return True
        spec = self._requests[number]
        request = spec.layout.unpack(body, _REQUEST_HEAD.size)
        self.received.append(request)
        self._seen[spec.name] += 1
        if self._plan.die_at and len(self.received) >= self._plan.die_at:
            self._plan.die_at = 0
            await self.kill()
            return False
        if spec.name not in self._plan.silent:
            self._respond(writer, spec, request, context)
        return True

    def _hello_reply(self, body: bytes) -> bytes:
        context = Struct("!HI").unpack_from(body)[1]
        table = b"".join(ENTRY.pack(number, name.encode()) for name, number in self._numbers.items())
        return HELLO_REPLY.pack(HELLO_REPLY_ID, 0, context, 0, 7, len(self._numbers)) + table

    def _respond(self, writer: asyncio.StreamWriter, spec: Spec, request: object, context: int) -> None:
        retval = self._plan.failures.pop((spec.name, self._seen[spec.name]), 0)
        before, peers = dict(self.model.interfaces), secure.peer_flags(self.model)
        answer: Any
        try:
            tables = (handlers.HANDLERS, secure.HANDLERS)
            answer = _refusal(spec, retval) if retval else handlers.perform(self.model, request, tables)
        except Refused as refused:
            answer = _refusal(spec, refused.retval)
        if isinstance(request, WantInterfaceEvents):
            self._wants_events.add(writer)
        if isinstance(request, WantPeerEvents) and not retval:
            self._wants_peers.setdefault(writer, set()).update(secure.told_of(self.model, request))
        self._tell_of_ends(peers)
        entry = spec_of(spec.answer)
        if entry.kind == DETAILS:
            for each in answer if isinstance(answer, list) else ():
                _send(writer, self._body(entry, each, context))
        else:
            _send(writer, self._body(reply_spec(spec), answer, context))
        for index in before.keys() - self.model.interfaces.keys():
            self.emit(InterfaceEvent(pid=1, sw_if_index=index, flags=0, deleted=True))
        for index, now in secure.peer_flags(self.model).items():
            if now != peers.get(index, 0):
                self._tell_of(PeerEvent(pid=0, peer_index=index, flags=now))

    def _tell_of_ends(self, before: Mapping[int, int]) -> None:
        """Before the answer to what removed them, as VPP does it; nobody is told of whoever has that index next."""
        for index in before.keys() - self.model.peers.keys():
            self._tell_of(PeerEvent(pid=0, peer_index=index, flags=DEAD))
            for told in self._wants_peers.values():
                told.discard(index)

    def _tell_of(self, event: PeerEvent) -> None:
        for writer, told in self._wants_peers.items():
            if event.peer_index in told:
                _send(writer, self._body(spec_of(event), event, 0))

    def _body(self, spec: Spec, message: object, context: int) -> bytes:
        return ANSWER.pack(self._numbers[spec.wire_name], context) + spec.layout.pack(message)


def _refusal(spec: Spec, retval: int) -> object:
    """A reply of the right form, all zero but for ``retval``."""
    layout = spec_of(spec.answer).layout
    if "retval" not in getattr(spec.answer, "__slots__", ()):
        return []
    empty = layout.unpack(bytes(layout.size))
    return replace(empty, retval=retval)


def _send(writer: asyncio.StreamWriter, body: bytes) -> None:
    if not writer.transport.is_closing():
        writer.write(HEADER.pack(0, len(body), 0) + body)
