"""From gRPC's handlers to ours: codecs, the caller's identity, and errors as statuses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NoReturn, Protocol, TypeVar

import grpc
import grpc.aio
import structlog

from nsm.model.errors import Code, NsmError
from nsm.transport import recorded
from nsm.transport.call import Call
from nsm.transport.status import to_grpc
from nsm.wire.method import Method

Req = TypeVar("Req")
Res = TypeVar("Res")

_log: Final = structlog.get_logger(__name__)


class Context(Protocol):
    """What we use of gRPC's servicer context."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with a status."""

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Once, before the first message."""


CallOf = Callable[[Any], Call | None]
Entry = Callable[[CallOf], grpc.RpcMethodHandler]


class Handlers:
    """The methods a server has, by path."""

    def __init__(self) -> None:
        self.entries: Final[dict[str, Entry]] = {}
        self._services: dict[str, None] = {}

    def services(self) -> tuple[str, ...]:
        """Their services' full names."""
        return tuple(self._services)

    def unary(self, method: Method[Req, Res], handler: Callable[[Req, Call], Awaitable[Res]]) -> None:
        """One request, one answer."""

        def entry(call_of: CallOf) -> grpc.RpcMethodHandler:
            async def behaviour(data: bytes, context: Context) -> bytes:
                call = await _admitted(call_of, context)
                try:
                    answer = method.encode_response(await handler(method.decode_request(data), call))
                    await _send_metadata(call, context)
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await _fail(context, method.path, error)
                return answer

            return grpc.unary_unary_rpc_method_handler(behaviour)

        self._add(method, entry)

    def stream(self, method: Method[Req, Res], handler: Callable[[Req, Call], AsyncIterator[Res]]) -> None:
        """One request, many answers."""

        def entry(call_of: CallOf) -> grpc.RpcMethodHandler:
            async def behaviour(data: bytes, context: Context) -> AsyncIterator[bytes]:
                call = await _admitted(call_of, context)
                try:
                    answers = handler(method.decode_request(data), call)
                    async for one in _encoded(answers, method, call, context):
                        yield one
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await _fail(context, method.path, error)

            return grpc.unary_stream_rpc_method_handler(behaviour)

        self._add(method, entry)

    def bidi(
        self, method: Method[Req, Res], handler: Callable[[AsyncIterator[Req], Call], AsyncIterator[Res]]
    ) -> None:
        """Many requests, many answers."""

        def entry(call_of: CallOf) -> grpc.RpcMethodHandler:
            async def behaviour(parts: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
                call = await _admitted(call_of, context)
                try:
                    requests = (method.decode_request(data) async for data in parts)
                    async for one in _encoded(handler(requests, call), method, call, context):
                        yield one
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await _fail(context, method.path, error)

            return grpc.stream_stream_rpc_method_handler(behaviour)

        self._add(method, entry)

    def _add(self, method: Method[Any, Any], entry: Entry) -> None:
        self.entries[method.path] = entry
        self._services[method.service] = None


class Generic(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Hands all methods to gRPC; ``call_of`` gives ``None`` for a caller who came past TLS."""

    def __init__(self, handlers: Handlers, call_of: CallOf) -> None:
        shared = recorded.shared(call_of)
        made = {path: entry(shared) for path, entry in handlers.entries.items()}
        self._made = recorded.handlers(made, call_of)

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        """The handler of a method, ``None`` = UNIMPLEMENTED."""
        return self._made.get(handler_call_details.method)


async def _admitted(call_of: CallOf, context: Any) -> Call:
    call = call_of(context)
    if call is None:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "expected a connection through mutual TLS")
        raise AssertionError("abort raises")
    return call


async def _encoded(
    answers: AsyncIterator[Res], method: Method[Any, Res], call: Call, context: Context
) -> AsyncIterator[bytes]:
    """The answers as bytes; the handler's generator ends with the call, however it ends."""
    is_first = True
    try:
        async for answer in answers:
            if is_first:
                is_first = False
                await _send_metadata(call, context)
            yield method.encode_response(answer)
    finally:
        close = getattr(answers, "aclose", None)
        if close is not None:
            await close()


async def _send_metadata(call: Call, context: Context) -> None:
    if call.answer_metadata:
        await context.send_initial_metadata(tuple(call.answer_metadata))


async def _fail(context: Context, path: str, error: Exception) -> NoReturn:
    if isinstance(error, NsmError):
        await context.abort(to_grpc(error.code), error.detail)
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    _log.error("transport.handler", method=path, exc_info=error)
    await context.abort(to_grpc(Code.INTERNAL), f"internal error ({type(error).__name__}), see the log")
    raise AssertionError("abort raises")
