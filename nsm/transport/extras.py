"""Health and server reflection, which every server has (reference §1.1)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio as reflection

from nsm.model.errors import Code, NsmError, invalid
from nsm.transport.call import Call
from nsm.transport.dispatch import Handlers
from nsm.wire.method import Method

Message = TypeVar("Message")

HEALTH: Final = "grpc.health.v1.Health"
REFLECTIONS: Final = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""Both versions have the same messages; tools ask for the newer one first."""

_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Whether the server, and each service of it, serves."""

    def __init__(self, services: Callable[[], Sequence[str]]) -> None:
        """``services``: the names that exist, asked at each check."""
        self._services = services
        self._is_serving = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Change it and tell the watchers."""
        self._is_serving = serving
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def add_to(self, handlers: Handlers) -> None:
        """Check, List and Watch."""
        request = health_pb2.HealthCheckRequest
        response = health_pb2.HealthCheckResponse
        handlers.unary(_method(HEALTH, "Check", request, response), self._check)
        handlers.unary(
            _method(HEALTH, "List", health_pb2.HealthListRequest, health_pb2.HealthListResponse), self._list
        )
        handlers.stream(_method(HEALTH, "Watch", request, response), self._watch)

    def _status(self, service: str) -> int:
        if service and service not in self._services():
            return int(_UNKNOWN)
        return int(_SERVING if self._is_serving else _NOT_SERVING)

    async def _check(self, request: Any, _: Call) -> Any:
        status = self._status(request.service)
        if status == _UNKNOWN:
            raise NsmError(Code.NOT_FOUND, f"no service {request.service!r} here", field="service")
        return health_pb2.HealthCheckResponse(status=status)

    async def _list(self, _request: Any, _: Call) -> Any:
        names = ("", *self._services())
        statuses = {name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def _watch(self, request: Any, _: Call) -> AsyncIterator[Any]:
        told: int | None = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                told = status
                yield health_pb2.HealthCheckResponse(status=status)
            await changed.wait()


def add_reflection(handlers: Handlers, files: Sequence[FileDescriptor]) -> None:
    """Show the services of ``handlers`` as ``files`` describe them."""
    pool = files[0].pool if files else descriptor_pool.Default()
    names = (*handlers.services(), *REFLECTIONS)
    servicer = reflection.ReflectionServicer(names, pool=pool)

    async def info(requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        async for answer in servicer.ServerReflectionInfo(requests, call):
            yield answer

    for service in REFLECTIONS:
        handlers.bidi(
            _method(
                service,
                "ServerReflectionInfo",
                reflection_pb2.ServerReflectionRequest,
                reflection_pb2.ServerReflectionResponse,
            ),
            info,
        )


def _method(service: str, name: str, request: Any, response: Any) -> Method[Any, Any]:
    return Method(
        service,
        name,
        encode_request=request.SerializeToString,
        decode_request=_decoder(request),
        encode_response=response.SerializeToString,
        decode_response=_decoder(response),
    )


def _decoder(kind: Any) -> Callable[[bytes], Any]:
    def decode(data: bytes) -> Any:
        try:
            return kind.FromString(data)
        except DecodeError as error:
            raise invalid("", f"a {kind.DESCRIPTOR.full_name}", data[:32]) from error

    return decode
