"""Netlink messages as bytes, against bytes typed from the kernel's headers."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.netlink import links, wire
from forwarder_vpp.dataplane.netlink.session import NetlinkError, parsed
from forwarder_vpp.dataplane.netlink.tags import Tag, Tags, derived_mac
from nsm.model.errors import Code


def test_a_message_has_length_type_flags_sequence() -> None:
    packed = wire.Message(wire.RTM_GETLINK, b"\1\2\3\4", 0x300).packed(7)
    assert packed == struct.pack("=IHHII", 20, 18, 0x305, 7, 0) + b"\1\2\3\4"
    assert list(parsed(packed)) == [(18, 0x305, 7, b"\1\2\3\4")]


def test_attributes_are_padded_to_four_bytes() -> None:
    assert wire.pack([(3, wire.text("ab")), (4, wire.u32(9))]) == bytes.fromhex(
        "07000300616200000800040009000000"
    )


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_what_is_packed_is_unpacked(attributes: dict[int, bytes]) -> None:
    assert wire.unpack(wire.pack(attributes.items())) == attributes


@given(st.binary(max_size=64))
def test_no_bytes_break_the_parsers(data: bytes) -> None:
    wire.unpack(data)


def test_a_refusal_carries_its_errno_as_code() -> None:
    error = NetlinkError(errno.EEXIST, "a route", "File exists")
    assert (error.code, error.errno) == (Code.ALREADY_EXISTS, errno.EEXIST)
    assert "a route" in error.message


def test_an_alias_says_whose_it_is_only_to_its_own_instance() -> None:
    tag = Tag("owner", "near", NetnsId(4, 4026531840, 77))
    alias = Tags("forwarder-1").alias(tag)
    assert len(alias) < 256
    assert Tags("forwarder-1").read(alias) == tag
    assert Tags("forwarder-2").read(alias) is None
    assert Tags("forwarder-1").group != Tags("forwarder-2").group


@pytest.mark.parametrize("alias", ["", "eth0 of the office", "nsm1 a b c d e f", "nsm1"])
def test_a_foreign_alias_is_nobodys(alias: str) -> None:
    assert Tags("forwarder-1").read(alias) is None


def test_derived_macs_are_stable_local_and_differ() -> None:
    near, far = derived_mac("o", "near"), derived_mac("o", "far")
    assert near == derived_mac("o", "near") != far
    assert int(near[:2], 16) & 3 == 2


def test_a_link_is_addressed_by_namespace_id_only_where_there_is_one() -> None:
    assert links.remove(links.AT_NODE, 5).body == struct.pack("=BxHiII", 0, 0, 5, 0, 0)
    assert links.remove(9, 5).body[16:] == struct.pack("=HHI", 8, 46, 9)
