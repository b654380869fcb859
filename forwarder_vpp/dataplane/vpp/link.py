"""One connection to VPP's API socket: batches what is written, matches what comes back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from struct import error as struct_error
from typing import Any

from nsm.model.errors import Code, NsmError

from .codec import DETAILS, EVENT, REQUEST, Spec, spec_of
from .errors import unavailable
from .frames import ANSWER, Frames, hello, read_hello_reply, request_frame
from .messages.core import ControlPing
from .table import SPECS

BATCH = 4096
"""VPP reads at most so many bytes per event."""


@dataclass(slots=True)
class Counters:
    """What a session has sent: messages, those that change VPP, batches (= turns of the loop that wrote)."""

    messages: int = 0
    mutating: int = 0
    batches: int = 0
    by_name: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Pending:
    """A call that waits: ``entries`` is set for a dump; ``undo`` is sent if the caller has gone."""

    spec: Spec
    future: "asyncio.Future[Any]"
    entries: list[Any] | None = None
    undo: Callable[[Any], object] | None = None


class Link(asyncio.Protocol):
    """Lives as long as its socket. Not thread-safe, belongs to the loop that made it."""

    def __init__(
        self,
        counters: Counters,
        on_event: Callable[[object], None],
        on_lost: Callable[["Link"], None],
        specs: Sequence[Spec] = SPECS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._counters = counters
        self._on_event = on_event
        self._on_lost = on_lost
        self._specs = specs
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._greeting: asyncio.Future[dict[str, int]] | None = None
        self._client_index = 0
        self._numbers: dict[str, int] = {}
        self._incoming: dict[int, Spec] = {}
        self._pending: dict[int, Pending] = {}
        self._context = 0
        self._out: list[bytes] = []

    # the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Every waiting call fails now."""
        self._transport = None
        waiting = [pending.future for pending in self._pending.values()]
        if self._greeting is not None:
            waiting.append(self._greeting)
        self._pending.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(unavailable(f"VPP closed its API socket{f': {exc}' if exc else ''}"))
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Hand each body to whoever waits for it."""
        for body in self._frames.feed(data):
            if self._greeting is not None:
                self._greet(body)
            else:
                self._dispatch(body)

    def close(self) -> None:
        """Close the socket; waiting calls fail."""
        if self._transport is not None:
            self._transport.abort()

    # handshake

    async def greet(self, name: str) -> dict[str, int]:
        """Shake hands; the result is VPP's message table."""
        if self._transport is None:
            raise unavailable("VPP closed its API socket")
        self._greeting = self._loop.create_future()
        self._transport.write(hello(name))
        return await self._greeting

    def _greet(self, body: bytes) -> None:
        greeting, self._greeting = self._greeting, None
        if greeting is None or greeting.done():
            return
        try:
            self._client_index, table = read_hello_reply(body)
        except NsmError as error:
            greeting.set_exception(error)
            return
        for spec in self._specs:
            number = table.get(spec.wire_name)
            if number is not None:
                self._numbers[spec.name] = number
                if spec.kind != REQUEST:
                    self._incoming[number] = spec
        greeting.set_result(table)

    # calls

    def post(self, request: object, undo: Callable[[Any], object] | None = None) -> "asyncio.Future[Any]":
        """Queue a request for the end of this turn of the loop; the future gets its decoded reply."""
        return self._post(request, undo=undo).future

    def post_dump(self, request: object) -> "asyncio.Future[Any]":
        """As ``post``; the future gets the list of entries."""
        pending = self._post(request, entries=[])
        self._queue(spec_of(ControlPing), ControlPing(), self._context)
        return pending.future

    def _post(
        self,
        request: object,
        *,
        entries: list[Any] | None = None,
        undo: Callable[[Any], object] | None = None,
    ) -> Pending:
        if self._transport is None:
            raise unavailable("VPP closed its API socket")
        spec = spec_of(request)
        context = self._context = self._context % 0xFFFFFFFF + 1
        self._queue(spec, request, context)
        pending = self._pending[context] = Pending(spec, self._loop.create_future(), entries, undo)
        return pending

    def _queue(self, spec: Spec, request: object, context: int) -> None:
        try:
            fields = spec.layout.pack(request)
            number = self._numbers[spec.name]
        except (ValueError, struct_error) as error:
            raise NsmError(Code.INTERNAL, f"{spec.name}: {error}") from error
        except KeyError:
            raise NsmError(Code.UNIMPLEMENTED, f"this VPP does not know {spec.name}") from None
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(request_frame(number, self._client_index, context, fields))
        counters = self._counters
        counters.messages += 1
        counters.mutating += not spec.reads
        counters.by_name[spec.name] += 1

    def _flush(self) -> None:
        frames, self._out = self._out, []
        if self._transport is None or not frames:
            return
        self._counters.batches += 1
        chunk = bytearray()
        for frame in frames:
            if chunk and len(chunk) + len(frame) > BATCH:
                self._transport.write(bytes(chunk))
                chunk.clear()
            chunk += frame
        self._transport.write(bytes(chunk))

    # answers

    def _dispatch(self, body: bytes) -> None:
        number, context = ANSWER.unpack_from(body)
        spec = self._incoming.get(number)
        if spec is None:
            return  # an event or keep-alive nobody asked for
        if spec.kind == EVENT:
            self._on_event(spec.layout.unpack(body, ANSWER.size))
            return
        pending = self._pending.get(context)
        if pending is None:
            return
        try:
            self._answer(pending, context, spec, spec.layout.unpack(body, ANSWER.size))
        except (struct_error, ValueError) as error:
            self._pending.pop(context, None)
            if not pending.future.done():
                reason = f"VPP's {spec.name} is malformed: {error}"
                pending.future.set_exception(NsmError(Code.INTERNAL, reason))

    def _answer(self, pending: Pending, context: int, spec: Spec, message: Any) -> None:
        if pending.entries is not None and spec.kind == DETAILS:
            pending.entries.append(message)
            return
        del self._pending[context]
        if not pending.future.done():
            pending.future.set_result(message if pending.entries is None else pending.entries)
        elif pending.undo is not None:
            self.take_back(pending.undo, message)

    def take_back(self, undo: Callable[[Any], object], reply: Any) -> None:
        """Undo what was made for a caller that has gone; nobody waits for this."""
        if reply.retval == 0 and self._transport is not None:
            self._post(undo(reply)).future.cancel()
