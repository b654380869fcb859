"""The method table and the services of our .proto files against reference §1.1."""

from typing import Any

import pytest
from google.protobuf import descriptor_pool

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.wire import methods
from nsm.wire.codec import Codec
from nsm.wire.method import Method

UNARY, SERVER_STREAM, BIDI = (False, False), (False, True), (True, True)
EMPTY = "google.protobuf.Empty"
NS, NSE = "registry.NetworkService", "registry.NetworkServiceEndpoint"
TABLE = {
    "NETWORK_SERVICE_REQUEST": (
        "/networkservice.NetworkService/Request",
        "networkservice.NetworkServiceRequest",
        "connection.Connection",
        UNARY,
    ),
    "NETWORK_SERVICE_CLOSE": (
        "/networkservice.NetworkService/Close",
        "connection.Connection",
        EMPTY,
        UNARY,
    ),
    "MONITOR_CONNECTIONS": (
        "/connection.MonitorConnection/MonitorConnections",
        "connection.MonitorScopeSelector",
        "connection.ConnectionEvent",
        SERVER_STREAM,
    ),
    "NS_REGISTER": ("/registry.NetworkServiceRegistry/Register", NS, NS, UNARY),
    "NS_FIND": (
        "/registry.NetworkServiceRegistry/Find",
        "registry.NetworkServiceQuery",
        "registry.NetworkServiceResponse",
        SERVER_STREAM,
    ),
    "NS_UNREGISTER": ("/registry.NetworkServiceRegistry/Unregister", NS, EMPTY, UNARY),
    "NSE_REGISTER": ("/registry.NetworkServiceEndpointRegistry/Register", NSE, NSE, UNARY),
    "NSE_FIND": (
        "/registry.NetworkServiceEndpointRegistry/Find",
        "registry.NetworkServiceEndpointQuery",
        "registry.NetworkServiceEndpointResponse",
        SERVER_STREAM,
    ),
    "NSE_UNREGISTER": ("/registry.NetworkServiceEndpointRegistry/Unregister", NSE, EMPTY, UNARY),
    "IPAM_MANAGE_PREFIXES": ("/ipam.IPAM/ManagePrefixes", "ipam.PrefixRequest", "ipam.PrefixResponse", BIDI),
}


def codec_name(function: Any) -> str:
    """The message type of the codec whose bound method this is."""
    codec = function.__self__
    assert isinstance(codec, Codec)
    return codec.name


@pytest.mark.parametrize("constant", TABLE)
def test_a_method_has_its_path_messages_and_streaming_kind(constant: str) -> None:
    method: Method[Any, Any] = getattr(methods, constant)
    path, request, response, kind = TABLE[constant]
    assert method.path == path
    assert codec_name(method.encode_request) == codec_name(method.decode_request) == request
    assert codec_name(method.encode_response) == codec_name(method.decode_response) == response
    assert (method.client_streaming, method.server_streaming) == kind


def test_all_methods_lists_each_method_once() -> None:
    assert [method.path for method in methods.ALL_METHODS] == [path for path, *_ in TABLE.values()]


def test_the_proto_files_have_exactly_the_services_and_methods_of_the_table() -> None:
    services = [s for file in methods.FILES for s in file.services_by_name.values()]
    found = {
        f"/{service.full_name}/{m.name}": (
            m.input_type.full_name,
            m.output_type.full_name,
            (m.client_streaming, m.server_streaming),
        )
        for service in services
        for m in service.methods
    }
    assert found == {path: tuple(rest) for path, *rest in TABLE.values()}
    assert set(methods.SERVICE_NAMES) == {path.split("/")[1] for path, *_ in TABLE.values()}


def test_reflection_finds_the_services_and_files_in_the_default_pool() -> None:
    pool = descriptor_pool.Default()
    for file in methods.FILES:
        assert pool.FindFileByName(file.name) is file
    for name in methods.SERVICE_NAMES:
        assert pool.FindServiceByName(name).file in methods.FILES


def test_an_empty_reply_is_none_and_no_bytes() -> None:
    assert methods.NETWORK_SERVICE_CLOSE.encode_response(None) == b""
    decode: Any = methods.NETWORK_SERVICE_CLOSE.decode_response
    assert decode(b"") is None
    assert decode(bytes.fromhex("0801")) is None  # a later version's Empty may hold something


def test_a_malformed_empty_reply_is_refused() -> None:
    with pytest.raises(NsmError, match=r"google\.protobuf\.Empty") as caught:
        methods.NETWORK_SERVICE_CLOSE.decode_response(b"\x0a")
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_close_carries_the_connection() -> None:
    sent = methods.NETWORK_SERVICE_CLOSE.encode_request(Connection(id="c1"))
    assert sent == bytes.fromhex("0a026331")
    assert methods.NETWORK_SERVICE_CLOSE.decode_request(sent) == Connection(id="c1")
