"""What a newer peer may send: fields and enum numbers we do not know pass through us unchanged."""

from dataclasses import replace
from typing import Any

import pytest

from nsm.model.connection import Connection, ConnectionEvent, State
from nsm.model.context import Family
from nsm.model.mechanism import Mechanism
from nsm.model.path import Path, PathSegment
from nsm.wire import codec
from nsm.wire.codec import Codec

X = "c03e07"  # field 1000, varint 7: the tag is 1000 << 3 | 0 = 8000, low seven bits first
MESSAGES: dict[str, tuple[Codec[Any, Any], str]] = {
    "connection": (codec.CONNECTION, X),
    "mechanism": (codec.CONNECTION, f"1a03 {X}"),
    "path": (codec.CONNECTION, f"3203 {X}"),
    "segment": (codec.CONNECTION, f"3205 1203 {X}"),
    "context": (codec.CONNECTION, f"2203 {X}"),
    "IP context": (codec.CONNECTION, f"2205 0a03 {X}"),
    "source route": (codec.CONNECTION, f"2207 0a05 2a03 {X}"),
    "destination route": (codec.CONNECTION, f"2207 0a05 3203 {X}"),
    "neighbour": (codec.CONNECTION, f"2207 0a05 4203 {X}"),
    "extra prefix request": (codec.CONNECTION, f"2207 0a05 4a03 {X}"),
    "family": (codec.CONNECTION, f"2209 0a07 4a05 0a03 {X}"),
    "policy": (codec.CONNECTION, f"2207 0a05 5a03 {X}"),
    "route of a policy": (codec.CONNECTION, f"2209 0a07 5a05 2a03 {X}"),
    "DNS context": (codec.CONNECTION, f"2205 1203 {X}"),
    "DNS configuration": (codec.CONNECTION, f"2207 1205 0a03 {X}"),
    "Ethernet context": (codec.CONNECTION, f"2205 1a03 {X}"),
    "request": (codec.NETWORK_SERVICE_REQUEST, f"0a00 {X}"),
    "preference": (codec.NETWORK_SERVICE_REQUEST, f"0a00 1203 {X}"),
    "event": (codec.CONNECTION_EVENT, X),
    "connection of an event": (codec.CONNECTION_EVENT, f"1208 0a016b 1203 {X}"),
    "selector": (codec.MONITOR_SCOPE_SELECTOR, X),
    "service": (codec.NETWORK_SERVICE, X),
    "match": (codec.NETWORK_SERVICE, f"1a03 {X}"),
    "destination": (codec.NETWORK_SERVICE, f"1a05 1203 {X}"),
    "metadata": (codec.NETWORK_SERVICE, f"1a05 2203 {X}"),
    "endpoint": (codec.NETWORK_SERVICE_ENDPOINT, X),
    "labels of an endpoint": (codec.NETWORK_SERVICE_ENDPOINT, f"1a08 0a016b 1203 {X}"),
    "service query": (codec.NETWORK_SERVICE_QUERY, f"0a00 {X}"),
    "service response": (codec.NETWORK_SERVICE_RESPONSE, f"0a00 {X}"),
    "endpoint query": (codec.ENDPOINT_QUERY, f"0a00 {X}"),
    "endpoint response": (codec.ENDPOINT_RESPONSE, f"0a00 {X}"),
    "prefix request": (codec.PREFIX_REQUEST, X),
    "prefix response": (codec.PREFIX_RESPONSE, X),
    "prefix response's missing field 1": (codec.PREFIX_RESPONSE, "0801"),
}


@pytest.mark.parametrize("place", MESSAGES)
def test_an_unknown_field_passes_through_every_message(place: str) -> None:
    each, hexadecimal = MESSAGES[place]
    data = bytes.fromhex(hexadecimal)
    assert each.encode(each.decode(data)) == data


@pytest.mark.parametrize(
    "field",
    [
        "c03e ffffffffffffffffff01",  # varint
        "c13e 0102030405060708",  # 64 bits
        "c23e 0548656c6c6f",  # length-delimited
        "c33e 0801 120162 c43e",  # a group
        "c53e 01020304",  # 32 bits
        "0805",  # a known number with another wire type
        "c03e01 c03e02 b87d03",  # several, repeated
    ],
)
def test_an_unknown_field_of_every_wire_type_is_kept_beside_the_known_ones(field: str) -> None:
    data = bytes.fromhex(field)
    connection = codec.CONNECTION.decode(bytes.fromhex("0a0163") + data)
    assert connection == Connection(id="c", unknown=data)
    assert codec.CONNECTION.encode(connection) == bytes.fromhex("0a0163") + data


def test_without_unknown_fields_there_are_no_bytes_to_keep() -> None:
    connection = Connection("c", mechanism=Mechanism("L", "T"), path=Path(0, (PathSegment("n"),)))
    assert codec.CONNECTION.decode(codec.CONNECTION.encode(connection)).unknown == b""


def test_a_change_of_known_fields_leaves_the_unknown_ones() -> None:
    connection = codec.CONNECTION.decode(bytes.fromhex(f"0a0163 {X}"))
    changed = replace(connection, id="d", labels={"a": "b"})
    assert codec.CONNECTION.encode(changed) == bytes.fromhex(f"0a0164 2a06 0a0161 120162 {X}")


@pytest.mark.parametrize("number", [4, 2**31 - 1, -1, -(2**31)])
def test_an_unknown_enum_number_survives_as_a_plain_int(number: int) -> None:
    varint = _varint(number)
    connection = codec.CONNECTION.decode(b"\x48" + varint)
    assert (type(connection.state), connection.state) == (int, number)
    assert codec.CONNECTION.encode(connection) == b"\x48" + varint
    event: ConnectionEvent = codec.CONNECTION_EVENT.decode(b"\x08" + varint)
    assert (type(event.type), event.type) == (int, number)
    assert codec.CONNECTION_EVENT.encode(event) == b"\x08" + varint
    prefix = codec.PREFIX_REQUEST.decode(b"\x08" + varint)
    assert (type(prefix.type), prefix.type) == (int, number)
    assert codec.PREFIX_REQUEST.encode(prefix) == b"\x08" + varint


def _varint(number: int) -> bytes:
    """Encoding of an enum number: 64-bit two's complement, seven bits a byte, low ones first."""
    rest, out = number % 2**64, bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def test_an_unknown_family_survives_as_a_plain_int() -> None:
    data = bytes.fromhex("2208 0a06 4a04 0a02 0805")
    connection = codec.CONNECTION.decode(data)
    family = connection.ip.extra_prefix_request[0].addr_family
    assert (type(family), family) == (int, 5)
    assert codec.CONNECTION.encode(connection) == data


def test_known_enum_numbers_are_members() -> None:
    assert codec.CONNECTION.decode(bytes.fromhex("4801")).state is State.DOWN
    ip = codec.CONNECTION.decode(bytes.fromhex("2208 0a06 4a04 0a02 0801")).ip
    assert ip.extra_prefix_request[0].addr_family is Family.IPV6


def test_an_unset_connection_or_service_reads_as_an_empty_one_and_is_sent_as_set() -> None:
    for each in (codec.NETWORK_SERVICE_REQUEST, codec.NETWORK_SERVICE_QUERY, codec.ENDPOINT_RESPONSE):
        any_codec: Codec[Any, Any] = each
        assert any_codec.encode(any_codec.decode(b"")) == b"\x0a\x00"
