"""Every RPC method of NSM with its codecs (reference §1.1), and the descriptors for server reflection."""

from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FileDescriptor

from nsm.wire import codec
from nsm.wire.codec import Codec
from nsm.wire.generated import (
    connection_pb2,
    connectioncontext_pb2,
    ipam_pb2,
    networkservice_pb2,
    registry_pb2,
)
from nsm.wire.method import Method

Req = TypeVar("Req")
Res = TypeVar("Res")

FILES: Final[tuple[FileDescriptor, ...]] = (
    networkservice_pb2.DESCRIPTOR,
    connection_pb2.DESCRIPTOR,
    connectioncontext_pb2.DESCRIPTOR,
    registry_pb2.DESCRIPTOR,
    ipam_pb2.DESCRIPTOR,
)
_SERVICES: Final = {
    service.full_name: service for file in FILES for service in file.services_by_name.values()
}
SERVICE_NAMES: Final = tuple(_SERVICES)


def _method(service: str, name: str, request: Codec[Req, Any], response: Codec[Res, Any]) -> Method[Req, Res]:
    """The method of that name in our .proto files; they alone say which sides stream."""
    descriptor = _SERVICES[service].methods_by_name[name]
    return Method(
        service=service,
        name=name,
        encode_request=request.encode,
        decode_request=request.decode,
        encode_response=response.encode,
        decode_response=response.decode,
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
    )


_NETWORK_SERVICE: Final = "networkservice.NetworkService"
_NS_REGISTRY: Final = "registry.NetworkServiceRegistry"
_NSE_REGISTRY: Final = "registry.NetworkServiceEndpointRegistry"

NETWORK_SERVICE_REQUEST: Final = _method(
    _NETWORK_SERVICE, "Request", codec.NETWORK_SERVICE_REQUEST, codec.CONNECTION
)
NETWORK_SERVICE_CLOSE: Final = _method(_NETWORK_SERVICE, "Close", codec.CONNECTION, codec.EMPTY)
MONITOR_CONNECTIONS: Final = _method(
    "connection.MonitorConnection", "MonitorConnections", codec.MONITOR_SCOPE_SELECTOR, codec.CONNECTION_EVENT
)
NS_REGISTER: Final = _method(_NS_REGISTRY, "Register", codec.NETWORK_SERVICE, codec.NETWORK_SERVICE)
NS_FIND: Final = _method(_NS_REGISTRY, "Find", codec.NETWORK_SERVICE_QUERY, codec.NETWORK_SERVICE_RESPONSE)
NS_UNREGISTER: Final = _method(_NS_REGISTRY, "Unregister", codec.NETWORK_SERVICE, codec.EMPTY)
NSE_REGISTER: Final = _method(
    _NSE_REGISTRY, "Register", codec.NETWORK_SERVICE_ENDPOINT, codec.NETWORK_SERVICE_ENDPOINT
)
NSE_FIND: Final = _method(_NSE_REGISTRY, "Find", codec.ENDPOINT_QUERY, codec.ENDPOINT_RESPONSE)
NSE_UNREGISTER: Final = _method(_NSE_REGISTRY, "Unregister", codec.NETWORK_SERVICE_ENDPOINT, codec.EMPTY)
IPAM_MANAGE_PREFIXES: Final = _method(
    "ipam.IPAM", "ManagePrefixes", codec.PREFIX_REQUEST, codec.PREFIX_RESPONSE
)

ALL_METHODS: Final[tuple[Method[Any, Any], ...]] = (
    NETWORK_SERVICE_REQUEST,
    NETWORK_SERVICE_CLOSE,
    MONITOR_CONNECTIONS,
    NS_REGISTER,
    NS_FIND,
    NS_UNREGISTER,
    NSE_REGISTER,
    NSE_FIND,
    NSE_UNREGISTER,
    IPAM_MANAGE_PREFIXES,
)
