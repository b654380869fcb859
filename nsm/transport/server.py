"""Serves RPC methods to verified peers: our relay in front of a grpcio server on a private socket."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Identity
from nsm.transport.call import Call
from nsm.transport.inbound import Inbound
from nsm.transport.status import CODES
from nsm.wire.method import Method
from nsm.wire.methods import FILES

Req = TypeVar("Req")
Res = TypeVar("Res")
Handler = Callable[[Any, Call], Any]

_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 10000),
    ("grpc.http2.max_ping_strikes", 0),
)
_LOG: Final = structlog.get_logger(__name__)


class Server:
    """Register methods, then ``start``; ``files`` are described by reflection."""

    def __init__(self, identity: Identity, *, files: Sequence[FileDescriptor] = FILES) -> None:
        self._identity = identity
        self._files = tuple(files)
        self._services: dict[str, dict[str, Any]] = {}
        self._directory = ""
        self._inbound: Inbound | None = None
        self._server: grpc.aio.Server | None = None
        self._health = health_aio.HealthServicer()

    # methods

    def unary(self, method: Method[Req, Res], handler: Callable[[Req, Call], Awaitable[Res]]) -> None:
        """One request, one answer."""

        async def behavior(data: bytes, context: Any) -> bytes:
            async with _Guard(self, method, context) as guard:
                answer = await handler(method.decode_request(data), guard.call)
                encoded = method.encode_response(answer)
                await guard.answer_metadata()
            return encoded

        self._add(method, grpc.unary_unary_rpc_method_handler(behavior))

    def stream(self, method: Method[Req, Res], handler: Callable[[Req, Call], AsyncIterator[Res]]) -> None:
        """One request, many answers."""

        async def behavior(data: bytes, context: Any) -> AsyncGenerator[bytes, None]:
            async with _Guard(self, method, context) as guard:
                async for encoded in guard.answers(handler(method.decode_request(data), guard.call)):
                    yield encoded

        self._add(method, grpc.unary_stream_rpc_method_handler(behavior))

    def bidi(
        self, method: Method[Req, Res], handler: Callable[[AsyncIterator[Req], Call], AsyncIterator[Res]]
    ) -> None:
        """Many requests, many answers."""

        async def behavior(requests: AsyncIterator[bytes], context: Any) -> AsyncGenerator[bytes, None]:
            async def decoded() -> AsyncGenerator[Req, None]:
                async for data in requests:
                    yield method.decode_request(data)

            async with _Guard(self, method, context) as guard:
                async for encoded in guard.answers(handler(decoded(), guard.call)):
                    yield encoded

        self._add(method, grpc.stream_stream_rpc_method_handler(behavior))

    def _add(self, method: Method[Any, Any], handler: Any) -> None:
        self._services.setdefault(method.service, {})[method.name] = handler

    # life

    async def start(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Serve on these URLs; the result has the ports chosen. NsmError says which URL cannot be had and why."""
        self._directory = tempfile.mkdtemp(prefix="nsm-")
        private = str(Path(self._directory, "in.sock"))
        server = grpc.aio.server(options=_OPTIONS)
        for service, methods in self._services.items():
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        server.add_insecure_port(f"unix:{private}")
        await server.start()
        self._server = server
        self._inbound = Inbound(self._identity, private)
        try:
            bound = self._inbound.open(urls)
        except NsmError:
            await self.stop(0)
            raise
        await self._say(serving=True)
        return bound

    def set_serving(self, serving: bool) -> None:
        """What the health service answers, for the server and each service."""
        task = asyncio.ensure_future(self._say(serving=serving))
        task.add_done_callback(lambda done: done.exception())

    async def _say(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", *self._services):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace: float = 0.2) -> None:
        """No new calls; running ones may take ``grace`` seconds, then everything is closed."""
        if self._inbound is not None:
            self._inbound.stop_listening()
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None
        if self._inbound is not None:
            await self._inbound.close()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def call(self, context: Any) -> Call:
        """The call of a grpcio context; NsmError UNAUTHENTICATED unless it came through the relay."""
        found = self._inbound.lookup(context.peer()) if self._inbound is not None else None
        if found is None:
            raise NsmError(Code.UNAUTHENTICATED, "this call did not come through TLS")
        return Call(context, *found)


class _Guard:
    """Around a handler: makes its Call, and turns what it raises into a status."""

    def __init__(self, server: Server, method: Method[Any, Any], context: Any) -> None:
        self._server = server
        self._method = method
        self._context = context
        self.call: Call

    async def __aenter__(self) -> Self:
        try:
            self.call = self._server.call(self._context)
        except NsmError as error:
            await self._context.abort(CODES[error.code], error.detail)
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, NsmError):
            await self._context.abort(CODES[error.code], error.detail)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            _LOG.error("transport.handler_failed", method=self._method.path, exc_info=error)
            await self._context.abort(grpc.StatusCode.INTERNAL, f"{self._method.name} failed: see our log")

    async def answer_metadata(self) -> None:
        """Send the initial metadata, if there is any."""
        if self.call.answer_metadata:
            await self._context.send_initial_metadata(self.call.answer_metadata)

    async def answers(self, produced: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
        """The encoded answers; metadata leaves before the first one; the producer is closed whatever happens."""
        await self.answer_metadata()
        try:
            async for answer in produced:
                yield self._method.encode_response(answer)
        finally:
            close = getattr(produced, "aclose", None)
            if close is not None:
                await close()
