"""gRPC's callables and handlers with a ``WireLog`` beside them; as they are where nothing is recorded."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from nsm.transport import wirelog
from nsm.transport.call import Call
from nsm.transport.redaction import metadata_of
from nsm.transport.wire import Wire
from nsm.transport.wirelog import METHODS, Exchange, WireLog, waiting

CallOf = Callable[[Any], Call | None]


def unary(peer: str, wire: Wire, method: str, call: Any) -> Any:
    """The callable of a unary method on a connection, recorded if anything is."""
    return _callable(peer, wire, method, call, _UnaryCall)


def stream(peer: str, wire: Wire, method: str, call: Any) -> Any:
    """As ``unary`` for a method with many answers."""
    return _callable(peer, wire, method, call, _StreamCall)


def _callable(
    peer: str, wire: Wire, method: str, call: Any, under_way: Callable[[Exchange, Any], Any]
) -> Any:
    log = wirelog.current()
    if log is None or method not in METHODS:
        return call

    def recorded(
        data: bytes, *, timeout: float | None = None, metadata: Iterable[tuple[str, Any]] = ()
    ) -> Any:
        exchange = log.exchange("out", method, peer, wire)
        exchange.sent(
            "request", data, waiting(wire), timeout=_seconds(timeout), metadata=metadata_of(metadata)
        )
        return under_way(exchange, call(data, timeout=timeout, metadata=metadata))

    return recorded


def shared(call_of: CallOf) -> CallOf:
    """``call_of`` that gives the recorder and the handler the same ``Call``, if anything is recorded."""
    if wirelog.current() is None:
        return call_of
    return lambda context: context.call if isinstance(context, _Context) else call_of(context)


def handlers(made: Mapping[str, Any], call_of: CallOf) -> Mapping[str, Any]:
    """The handlers by method, recorded if anything is; ``call_of`` gives the ``Call`` of a context."""
    log = wirelog.current()
    if log is None:
        return made
    return {path: _recorded(log, path, handler, call_of) for path, handler in made.items()}


def _seconds(timeout: float | None) -> float | None:
    return None if timeout is None else round(timeout, 3)


class _UnaryCall:
    """A unary call under way."""

    def __init__(self, exchange: Exchange, call: Any) -> None:
        self._exchange = exchange
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Any:
        return self._answer().__await__()

    async def _answer(self) -> bytes:
        try:
            answer: bytes = await self._call
            metadata = await self._call.initial_metadata()
        except BaseException as error:
            self._exchange.failed(error)
            raise
        self._exchange.received("answer", answer, metadata=metadata_of(metadata or ()))
        self._exchange.end("OK")
        return answer


class _StreamCall:
    """A streaming call under way."""

    def __init__(self, exchange: Exchange, call: Any) -> None:
        self._exchange = exchange
        self._call = call
        self._parts: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __aiter__(self) -> "_StreamCall":
        self._parts = aiter(self._call)
        return self

    async def __anext__(self) -> bytes:
        try:
            part: bytes = await anext(self._parts)
        except StopAsyncIteration:
            self._exchange.end("OK")
            raise
        except BaseException as error:
            self._exchange.failed(error)
            raise
        self._exchange.received("answer", part)
        return part

    def cancel(self) -> Any:
        """By us; nothing if it is over."""
        self._exchange.end("CANCELLED", "by us")
        return self._call.cancel()


class _Context:
    """gRPC's servicer context; takes down what goes past the messages."""

    def __init__(self, exchange: Exchange, context: Any, call: Call) -> None:
        self.exchange = exchange
        self.call = call
        self._context = context
        self.metadata: dict[str, str] = {}

    def taken(self) -> list[str]:
        """The descriptors queued for the answer since the last one."""
        fds, self.call.answer_fds = self.call.answer_fds, []
        return fds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        """The end with a status."""
        self.exchange.end(code.name, details)
        await self._context.abort(code, details)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """What the first answer brings along."""
        self.metadata = metadata_of(metadata)
        await self._context.send_initial_metadata(metadata)


def _recorded(log: WireLog, path: str, handler: Any, call_of: CallOf) -> Any:
    """One handler; what is not in ``METHODS``, and a method with many requests, as it is."""
    if path not in METHODS:
        return handler

    def begin(data: bytes, context: Any) -> _Context | None:
        call = call_of(context)
        if call is None:
            return None
        exchange = log.exchange("in", path, call.peer.spiffe_id, call.wire)
        exchange.received(
            "request", data, timeout=_seconds(call.remaining()), metadata=metadata_of(call.metadata)
        )
        return _Context(exchange, context, call)

    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(_one(handler.unary_unary, begin))
    if handler.unary_stream is not None:
        return grpc.unary_stream_rpc_method_handler(_many(handler.unary_stream, begin))
    return handler


def _one(inner: Any, begin: Callable[[bytes, Any], _Context | None]) -> Any:
    async def behaviour(data: bytes, context: Any) -> bytes:
        seen = begin(data, context)
        if seen is None:
            refused: bytes = await inner(data, context)
            return refused
        try:
            answer: bytes = await inner(data, seen)
        except BaseException as error:
            seen.exchange.failed(error)
            raise
        seen.exchange.sent("answer", answer, seen.taken(), metadata=seen.metadata)
        seen.exchange.end("OK")
        return answer

    return behaviour


def _many(inner: Any, begin: Callable[[bytes, Any], _Context | None]) -> Any:
    async def behaviour(data: bytes, context: Any) -> AsyncIterator[bytes]:
        seen = begin(data, context)
        if seen is None:
            async for part in inner(data, context):
                yield part
            return
        try:
            async with aclosing(inner(data, seen)) as parts:
                async for part in parts:
                    seen.exchange.sent("answer", part, seen.taken(), metadata=seen.metadata)
                    yield part
        except BaseException as error:
            seen.exchange.failed(error)
            raise
        seen.exchange.end("OK")

    return behaviour
