"""The kernel's WireGuard messages, against bytes typed from linux/wireguard.h and linux/genetlink.h."""

import base64
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder_vpp.dataplane.linux import wireguard_wire
from forwarder_vpp.dataplane.linux.wireguard_wire import Device, Peer
from forwarder_vpp.dataplane.netlink import genl, wire

PRIVATE = base64.b64encode(bytes(range(32))).decode()
PUBLIC = base64.b64encode(bytes(range(32, 64))).decode()


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_a_device_with_its_peer() -> None:
    peer = Peer(PUBLIC, "192.0.2.2", 51820, 10)
    message = wireguard_wire.set_device(32, "nsm-1", Device(PRIVATE, 52001, (peer,)))
    v4 = attribute(1, b"\2\0") + attribute(2, bytes(4)) + attribute(3, b"\0")
    v6 = attribute(1, b"\x0a\0") + attribute(2, bytes(16)) + attribute(3, b"\0")
    allowed = attribute(0x8000, v4) + attribute(0x8000, v6)
    shown = (
        attribute(1, bytes(range(32, 64)))
        + attribute(3, struct.pack("=I", 2))  # WGPEER_F_REPLACE_ALLOWEDIPS
        + attribute(4, b"\2\0" + b"\xca\x6c" + bytes((192, 0, 2, 2)) + bytes(8))
        + attribute(5, struct.pack("=H", 10))
        + attribute(9 | 0x8000, allowed)
    )
    assert message.type == 32
    assert message.body == (
        b"\1\1\0\0"  # WG_CMD_SET_DEVICE, version 1
        + attribute(2, b"nsm-1\0")
        + attribute(5, struct.pack("=I", 1))  # WGDEVICE_F_REPLACE_PEERS
        + attribute(3, bytes(range(32)))
        + attribute(6, struct.pack("=H", 52001))
        + attribute(8 | 0x8000, attribute(0x8000, shown))
    )


def test_the_same_peer_elsewhere_takes_nobodys_place() -> None:
    message = wireguard_wire.set_peer(32, "x", Peer(PUBLIC, "2001:db8::2", 7, 10), is_new=False)
    found = genl.attributes(message.body)
    assert found[5] == struct.pack("=I", 0)
    (peer,) = wire.unpack_list(found[8])
    endpoint = wire.unpack(peer)[4]
    assert endpoint == b"\x0a\0\0\7" + bytes(4) + IPv6Address("2001:db8::2").packed + bytes(4)


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(1, 65535),
    st.lists(
        st.builds(
            Peer,
            st.binary(min_size=32, max_size=32).map(lambda raw: base64.b64encode(raw).decode()),
            st.one_of(
                st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
            ).map(str),
            st.integers(1, 65535),
            st.integers(0, 65535),
        ),
        max_size=3,
    ),
)
def test_what_is_set_reads_the_same(private: bytes, port: int, peers: list[Peer]) -> None:
    device = Device(base64.b64encode(private).decode(), port, tuple(peers))
    assert wireguard_wire.parse([wireguard_wire.set_device(1, "x", device).body]) == device


def test_many_peers_come_in_several_answers_and_handshakes_have_a_time() -> None:
    head = bytes(4) + attribute(3, bytes(range(32))) + attribute(6, struct.pack("=H", 5))
    one = attribute(0, attribute(1, bytes(range(32, 64))) + attribute(6, struct.pack("=qq", 7, 500_000_000)))
    bodies = [head + attribute(8, one), bytes(4) + attribute(8, attribute(1, attribute(1, bytes(32))))]
    device = wireguard_wire.parse(bodies)
    assert (device.private_key, device.port) == (PRIVATE, 5)
    assert [each.last_handshake for each in device.peers] == [7.5, 0.0]
    assert device.peers[0] == Peer(PUBLIC, "", 0, 0, 7.5)


@pytest.mark.parametrize("key", ["", "AAEC", "not base64"])
def test_a_key_that_is_none_is_no_message(key: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wireguard_wire.set_device(1, "x", Device(key, 1, ()))


@given(st.binary(max_size=64))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    wire.unpack_list(data)
    genl.attributes(data)


def test_keys_are_not_shown() -> None:
    assert PRIVATE not in repr(Device(PRIVATE, 1, ()))
