"""Any bytes: each codec either decodes them or refuses them by its own name, and what it decodes survives."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nsm.model.errors import Code, NsmError
from nsm.wire import codec
from nsm.wire.codec import Codec
from nsm.wire.generate import differing, generate
from nsm.wire.generated import connection_pb2, registry_pb2

CODECS: tuple[Codec[Any, Any], ...] = tuple(
    value for name in codec.__all__ if isinstance(value := getattr(codec, name), Codec)
)


def decode(each: Codec[Any, Any], data: bytes) -> Any:
    """The model, or ``None`` where the codec refuses the bytes as it should."""
    try:
        return each.decode(data)
    except NsmError as error:
        assert (error.code, bool(error.field)) == (Code.INVALID_ARGUMENT, True)  # noqa: PT017 - others fail by themselves
        return None


@pytest.mark.parametrize("each", CODECS, ids=lambda each: each.name)
@given(data=st.binary(max_size=400))
@settings(max_examples=120, deadline=None)
@example(data=b"")
def test_any_bytes_are_decoded_or_refused(each: Codec[Any, Any], data: bytes) -> None:
    model = decode(each, data)
    if model is not None:
        again = each.decode(each.encode(model))
        assert again == model


VALID = (
    connection_pb2.Connection(
        id="c",
        network_service="s",
        labels={"a": "b"},
        path=connection_pb2.Path(index=1, path_segments=[{"name": "n", "id": "i", "token": "t"}]),
    ).SerializeToString(),
    registry_pb2.NetworkServiceEndpoint(
        name="e", network_service_names=["s"], url="tcp://a:1"
    ).SerializeToString(),
)


@pytest.mark.parametrize(
    ("each", "valid"), [(codec.CONNECTION, VALID[0]), (codec.NETWORK_SERVICE_ENDPOINT, VALID[1])]
)
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_valid_message_with_bytes_changed_is_decoded_or_refused(
    each: Codec[Any, Any], valid: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decode(each, bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


def test_the_generated_code_is_what_the_proto_files_give_byte_for_byte() -> None:
    assert differing(generate()) == []
