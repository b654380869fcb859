"""What the codecs refuse, always as INVALID_ARGUMENT that names the message type."""

from dataclasses import replace
from typing import Any

import pytest

from nsm.model.connection import Connection, ConnectionEvent, EventType, NetworkServiceRequest
from nsm.model.context import ConnectionContext, EthernetContext
from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.model.ipam import PrefixRequest
from nsm.model.path import Path, PathSegment
from nsm.wire import codec
from nsm.wire.codec import Codec

MIN_NS = -62_135_596_800 * 10**9  # 0001-01-01T00:00:00Z
MAX_NS = 253_402_300_799 * 10**9 + 999_999_999  # the last nanosecond of the year 9999

MALFORMED = {
    "a length beyond the end": "0a05 61",
    "a cut tag": "ff",
    "field number 0": "0000",
    "a varint of eleven bytes": "48 ffffffffffffffffffff01",
    "an end of group that never began": "1c",
    "a group that never ends": "a33e 0801",
    "invalid UTF-8": "0a02 c328",
    "an encoded surrogate": "0a03 eda080",
    "invalid UTF-8 in a map key": "2a06 0a0180 120162",
    "invalid UTF-8 deep inside": "3205 1203 0a01ff",
    "groups 200 deep": "1b" * 200 + "1c" * 200,
}


def refusal(call: Any, *arguments: object) -> NsmError:
    """The NsmError that the call raises."""
    with pytest.raises(NsmError) as caught:
        call(*arguments)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_bytes_are_refused_by_message_type(case: str) -> None:
    error = refusal(codec.CONNECTION.decode, bytes.fromhex(MALFORMED[case]))
    assert error.field == "connection.Connection"


ALL_CODECS: tuple[Codec[Any, Any], ...] = tuple(
    value for name in codec.__all__ if isinstance(value := getattr(codec, name), Codec)
)


@pytest.mark.parametrize("each", ALL_CODECS, ids=lambda each: each.name)
def test_every_codec_names_its_own_message(each: Codec[Any, Any]) -> None:
    assert refusal(each.decode, b"\x0a").field == each.message.DESCRIPTOR.full_name


def test_a_refusal_shows_no_bytes_of_the_peer() -> None:
    assert "secret" not in str(refusal(codec.CONNECTION.decode, b"\x0a\x7fsecret"))


@pytest.mark.parametrize(
    "timestamp",
    [
        "08 ffdb9deef4eaffffff01",  # see below: one second before year 1
        "08 8092b8c398feffffff01 10 ffffffffffffffffff01",  # nanos -1
        "10 8094ebdc03",  # nanos 1000000000
        "08 8083d1ffaf07",  # 10000-01-01
        "08 ffffffffffffffff7f",  # int64 max
    ],
)
def test_a_timestamp_out_of_range_is_refused_by_field(timestamp: str) -> None:
    stamp = bytes.fromhex(timestamp)
    segment = b"\x22" + bytes([len(stamp)]) + stamp
    error = refusal(codec.MONITOR_SCOPE_SELECTOR.decode, b"\x0a" + bytes([len(segment)]) + segment)
    assert error.field == "connection.PathSegment.expires"
    for field, tag in (("expiration_time", b"\x2a"), ("initial_registration_time", b"\x32")):
        error = refusal(codec.NETWORK_SERVICE_ENDPOINT.decode, tag + bytes([len(stamp)]) + stamp)
        assert error.field == f"registry.NetworkServiceEndpoint.{field}"


@pytest.mark.parametrize("ns", [MIN_NS, MIN_NS + 1, -1, 0, 1, MAX_NS - 1, MAX_NS])
def test_times_from_year_1_to_9999_are_exact(ns: int) -> None:
    endpoint = NetworkServiceEndpoint(expiration_time=ns, initial_registration_time=ns)
    data = codec.NETWORK_SERVICE_ENDPOINT.encode(endpoint)
    assert codec.NETWORK_SERVICE_ENDPOINT.decode(data) == endpoint


@pytest.mark.parametrize("ns", [MIN_NS - 1, MAX_NS + 1, 2**80])
def test_times_outside_are_not_sent(ns: int) -> None:
    connection = Connection(path=Path(0, (PathSegment(expires=ns),)))
    assert refusal(codec.CONNECTION.encode, connection).field == "connection.PathSegment.expires"
    endpoint = NetworkServiceEndpoint(initial_registration_time=ns)
    error = refusal(codec.NETWORK_SERVICE_ENDPOINT.encode, endpoint)
    assert error.field == "registry.NetworkServiceEndpoint.initial_registration_time"


@pytest.mark.parametrize(
    ("each", "model"),
    [
        (codec.CONNECTION, Connection(path=Path(-1))),
        (codec.CONNECTION, Connection(path=Path(2**32))),
        (codec.CONNECTION, Connection(context=ConnectionContext(mtu=-1))),
        (
            codec.CONNECTION,
            Connection(context=ConnectionContext(ethernet_context=EthernetContext("", "", 2**31))),
        ),
        (codec.CONNECTION, Connection(id="\ud800")),
        (codec.CONNECTION, Connection(labels={"a": "\udfff"})),
        (codec.CONNECTION, Connection(unknown=b"\x0a")),
        (codec.NETWORK_SERVICE_REQUEST, NetworkServiceRequest(Connection(id="\ud800"))),
        (codec.CONNECTION_EVENT, ConnectionEvent(EventType.UPDATE, {"\ud800": Connection()})),
        (codec.PREFIX_REQUEST, PrefixRequest(exclude_prefixes=("\ud800",))),
    ],
)
def test_what_the_wire_cannot_hold_is_not_sent(each: Codec[Any, Any], model: object) -> None:
    assert refusal(each.encode, model).field == each.name


def test_the_largest_numbers_the_wire_holds_are_sent() -> None:
    ethernet = EthernetContext("", "", -(2**31))
    connection = Connection(
        path=Path(2**32 - 1), context=ConnectionContext(ethernet_context=ethernet, mtu=2**32 - 1)
    )
    assert codec.CONNECTION.decode(codec.CONNECTION.encode(connection)) == connection


def test_equal_models_are_sent_as_equal_bytes_whatever_the_order_of_their_maps() -> None:
    labels = {str(number): "v" for number in range(50)}
    connection = Connection(labels=labels)
    turned = replace(connection, labels=dict(reversed(labels.items())))
    assert codec.CONNECTION.encode(connection) == codec.CONNECTION.encode(turned)
