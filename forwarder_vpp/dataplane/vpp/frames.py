"""The frames of VPP's API socket and the handshake in them.

A frame is a 16-byte header (8 bytes unused, 32-bit length of the body, 4 bytes unused) and a body that
begins with a 16-bit message number. Requests go on with client index and context, answers with the
context, events with the client index.
"""

from collections.abc import Iterator
from struct import Struct

from nsm.model.errors import Code, NsmError

REQUEST = Struct("!QIIHII")
"""Header and head of a request: unused, length, unused, message number, client index, context."""
ANSWER = Struct("!HI")
"""Head of a reply, an entry of a dump or an event: message number, context or client index."""
HEADER = Struct("!QII")

REQUEST_HEAD = REQUEST.size - HEADER.size
"""Bytes of a request's body before its fields."""

_HELLO = Struct("!QIIHI64s")
HELLO_ID = 15
HELLO_REPLY_ID = 16
HELLO_REPLY = Struct("!HIIiIH")
"""Head of the handshake's answer: number, client index, context, response, index, entries."""
ENTRY = Struct("!H64s")
"""One entry of the message table: number, ``name_crc``."""


class Frames:
    """Cuts the stream of the socket into bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The bodies that ``chunk`` completes."""
        buffer = self._buffer
        buffer += chunk
        start = 0
        while len(buffer) - start >= HEADER.size:
            end = start + HEADER.size + HEADER.unpack_from(buffer, start)[1]
            if len(buffer) < end:
                break
            yield bytes(buffer[start + HEADER.size : end])
            start = end
        del buffer[:start]


def request_frame(number: int, client_index: int, context: int, fields: bytes) -> bytes:
    """One request as it goes over the socket."""
    return REQUEST.pack(0, REQUEST_HEAD + len(fields), 0, number, client_index, context) + fields


def hello(name: str) -> bytes:
    """The first frame: who we are (at most 63 bytes)."""
    return _HELLO.pack(0, _HELLO.size - HEADER.size, 0, HELLO_ID, 0, name.encode()[:63])


def read_hello_reply(body: bytes) -> tuple[int, dict[str, int]]:
    """The client index and the message table (``name_crc`` → number). NsmError: no answer to ``hello``."""
    if len(body) < HELLO_REPLY.size:
        raise NsmError(Code.UNAVAILABLE, "the peer on VPP's API socket does not speak VPP's API")
    number, _, _, response, index, count = HELLO_REPLY.unpack_from(body)
    if number != HELLO_REPLY_ID or response != 0 or len(body) < HELLO_REPLY.size + count * ENTRY.size:
        raise NsmError(Code.UNAVAILABLE, "the peer on VPP's API socket does not speak VPP's API")
    entries = ENTRY.iter_unpack(body[HELLO_REPLY.size : HELLO_REPLY.size + count * ENTRY.size])
    return index, {name.partition(b"\0")[0].decode("ascii", "replace"): number for number, name in entries}
