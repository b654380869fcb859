"""The shape of every codec, and what all of them need: unknown fields, exact times, open enums."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final, Generic, TypeVar, cast

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from nsm.model.errors import Code, NsmError, invalid

M = TypeVar("M")
P = TypeVar("P", bound=Message)
E = TypeVar("E", bound=IntEnum)

NS_PER_S: Final = 1_000_000_000
REMEMBERED: Final = 4096
"""Parts of one kind that are kept: those of a thousand connections with four hops."""
MAX_REMEMBERED_BYTES: Final = 2048
"""Length of a part that is kept; a segment with its token has 500."""
# google/protobuf/timestamp.proto: 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, in seconds since 1970.
MIN_SECONDS: Final = -62_135_596_800
MAX_SECONDS: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Codec(Generic[M, P]):
    """Bytes ↔ model of one message type.

    ``read`` makes the model object of a message; ``fill`` writes a model object into an empty message.
    """

    message: type[P]
    read: Callable[[P], M]
    fill: Callable[[P, M], None]

    @property
    def name(self) -> str:
        """The full protobuf name, ``package.Message``."""
        return str(self.message.DESCRIPTOR.full_name)

    def decode(self, data: bytes) -> M:
        """The model object. Raises NsmError INVALID_ARGUMENT naming the message type on malformed bytes."""
        try:
            message = self.message.FromString(data)
        except DecodeError as error:
            raise NsmError(
                Code.INVALID_ARGUMENT,
                f"expected a message {self.name}, got {len(data)} bytes that are malformed or not UTF-8",
                field=self.name,
            ) from error
        return self.read(message)

    def encode(self, model: M) -> bytes:
        """The same bytes for equal models. Raises NsmError INVALID_ARGUMENT for what the wire cannot hold."""
        message = self.message()
        try:
            self.fill(message, model)
            return message.SerializeToString(deterministic=True)
        except (ValueError, DecodeError, EncodeError) as error:
            # ValueError: a number out of range, a lone surrogate. The others: `unknown` that holds no fields.
            raise NsmError(
                Code.INVALID_ARGUMENT, f"expected values that fit {self.name}: {error}", field=self.name
            ) from error


def remembered(message: type[P], read: Callable[[P], M]) -> Callable[[P], M]:
    """``read`` for a part that comes again and again as it was: the same object for the same bytes.

    Model objects never change, so those who are given one may share it. Keyed by everything the part says, so there
    is nothing to invalidate; a part that says much is read anew, or a peer could make us keep it.
    """

    @lru_cache(REMEMBERED)
    def read_bytes(data: bytes) -> M:
        return read(message.FromString(data))

    def read_part(part: P) -> M:
        data = part.SerializeToString()
        return read_bytes(data) if len(data) <= MAX_REMEMBERED_BYTES else read(part)

    return read_part


def unknown_of(message: Message) -> bytes:
    """The fields of the message itself, not of its sub-messages, that our .proto files do not have."""
    if not len(UnknownFieldSet(message)):
        return b""
    rest = type(message)()
    rest.CopyFrom(message)
    for known, _ in rest.ListFields():
        rest.ClearField(known.name)
    return rest.SerializeToString()


def put_unknown(message: Message, unknown: bytes) -> None:
    """Gives the message the fields that ``unknown_of`` found."""
    if unknown:
        message.MergeFromString(unknown)


def texts(pairs: Mapping[str, str]) -> dict[str, str]:
    """A protobuf map as a dict; most are empty, and asking is cheaper than copying."""
    return dict(pairs.items()) if pairs else {}


def put_texts(message: MutableMapping[str, str], model: Mapping[str, str]) -> None:
    """Fills a protobuf map; most are empty, and asking is cheaper than ``update``."""
    for key, value in model.items():
        message[key] = value


def open_enum(members: Mapping[int, E], number: int) -> E:
    """The member, or the plain number where we have none (proto3 enums are open; the model says so too)."""
    return members.get(number, cast("E", number))


def unix_ns(stamp: Timestamp, place: str) -> int:
    """Unix nanoseconds, exact. Raises NsmError INVALID_ARGUMENT naming ``place`` when no valid Timestamp."""
    seconds, nanos = stamp.seconds, stamp.nanos
    if not (MIN_SECONDS <= seconds <= MAX_SECONDS and 0 <= nanos < NS_PER_S):
        raise invalid(place, "a time in the years 1 to 9999, nanos under 1e9", f"{seconds} s {nanos} ns")
    return seconds * NS_PER_S + nanos


def put_unix_ns(stamp: Timestamp, ns: int, place: str) -> None:
    """Sets the Timestamp. Raises NsmError INVALID_ARGUMENT naming ``place`` when it cannot hold the time."""
    seconds, nanos = divmod(ns, NS_PER_S)
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise invalid(place, "a time in the years 1 to 9999 in Unix nanoseconds", ns)
    stamp.SetInParent()  # 1970-01-01 has only default fields and would not be sent
    stamp.seconds = seconds
    stamp.nanos = nanos


def _read_empty(_message: Empty) -> None:
    return None


def _fill_empty(_message: Empty, _model: None) -> None:
    return None


EMPTY: Final = Codec(Empty, _read_empty, _fill_empty)
