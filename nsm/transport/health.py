"""The asking half of gRPC's health service."""

from typing import Any, Final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from nsm.model.errors import invalid
from nsm.transport.channel import Channel
from nsm.transport.extras import HEALTH
from nsm.wire.method import Method


def _answer(data: bytes) -> Any:
    try:
        return health_pb2.HealthCheckResponse.FromString(data)
    except DecodeError as error:
        raise invalid("", "a grpc.health.v1.HealthCheckResponse", data[:32]) from error


_CHECK: Final[Method[Any, Any]] = Method(
    HEALTH,
    "Check",
    encode_request=health_pb2.HealthCheckRequest.SerializeToString,
    decode_request=health_pb2.HealthCheckRequest.FromString,
    encode_response=health_pb2.HealthCheckResponse.SerializeToString,
    decode_response=_answer,
)


async def health(channel: Channel, service: str = "", *, timeout: float) -> str:
    """What the server says of ``service`` ("" = itself): ``SERVING``, ``NOT_SERVING`` or ``UNKNOWN``.

    Raises:
        NsmError: NOT_FOUND for a service that is not there, UNAVAILABLE when nobody answers.
    """
    request = health_pb2.HealthCheckRequest(service=service)
    reply = await channel.unary(_CHECK, request, timeout=timeout)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.value.status))
