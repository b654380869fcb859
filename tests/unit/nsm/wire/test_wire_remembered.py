"""Parts of a message that come again: shared when they are the same, never mixed up, never hoarded."""

from dataclasses import replace

import pytest

from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import Mechanism
from nsm.model.path import Path, PathSegment
from nsm.wire import codec
from nsm.wire.codec.base import MAX_REMEMBERED_BYTES, remembered
from nsm.wire.generated import connection_pb2 as pb

CONNECTION = Connection(
    id="a",
    mechanism=Mechanism("LOCAL", "KERNEL", {"name": "nsm-1"}),
    context=ConnectionContext(IpContext(src_ip_addrs=("10.0.0.1/32",)), extra_context={"k": "v"}, mtu=1500),
    path=Path(0, (PathSegment("client", "a", "token", 10**18, {"m": "1"}), PathSegment("manager", "b"))),
)


def again(connection: Connection) -> Connection:
    return codec.CONNECTION.decode(codec.CONNECTION.encode(connection))


def test_the_same_parts_are_the_same_objects() -> None:
    one, other = again(CONNECTION), again(replace(CONNECTION, id="b"))
    assert one == CONNECTION
    assert one.context is other.context
    assert one.mechanism is other.mechanism
    assert one.route.segments[0] is other.route.segments[0]


@pytest.mark.parametrize(
    "changed",
    [
        replace(CONNECTION, mechanism=Mechanism("LOCAL", "KERNEL", {"name": "nsm-2"})),
        replace(CONNECTION, mechanism=Mechanism("LOCAL", "KERNEL", {"name": "nsm-1"}, b"\xa2\x06\x01x")),
        replace(CONNECTION, context=replace(CONNECTION.ctx, mtu=1501)),
        replace(CONNECTION, context=ConnectionContext()),
        replace(CONNECTION, path=Path(0, (PathSegment("client", "a", "token", 10**18 + 1, {"m": "1"}),))),
        replace(CONNECTION, path=Path(0, (PathSegment("client", "a", "token", 10**18, {"m": "2"}),))),
        replace(CONNECTION, path=Path(0, (PathSegment("client", "a", "forged", 10**18, {"m": "1"}),))),
    ],
)
def test_whatever_differs_is_read_anew(changed: Connection) -> None:
    assert again(CONNECTION) == CONNECTION
    assert again(changed) == changed


def test_a_part_is_read_once_and_a_long_one_is_not_kept() -> None:
    reads: list[str] = []

    def read(message: pb.PathSegment) -> str:
        reads.append(message.id)
        return message.id

    memory = remembered(pb.PathSegment, read)
    short, long = pb.PathSegment(id="short"), pb.PathSegment(id="long", token="t" * MAX_REMEMBERED_BYTES)
    assert [memory(short), memory(long), memory(short), memory(long)] == ["short", "long"] * 2
    assert reads == ["short", "long", "long"]


def test_a_refusal_is_not_remembered_as_an_answer() -> None:
    message = pb.Connection(id="a")
    message.path.path_segments.add(id="a").expires.seconds = 2**60
    data = message.SerializeToString()
    for _ in range(2):
        with pytest.raises(NsmError) as caught:
            codec.CONNECTION.decode(data)
        assert caught.value.code is Code.INVALID_ARGUMENT
