"""One stored connection, and its form in the store."""

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from forwarder_vpp.dataplane.contract.intent import Intent
from forwarder_vpp.mechanisms.tunnel import Choice
from nsm.model.connection import Connection
from nsm.model.errors import NsmError
from nsm.wire import codec


def _pack(connection: Connection) -> str:
    return b64encode(codec.CONNECTION.encode(connection)).decode()


def _unpack(text: str) -> Connection:
    try:
        return codec.CONNECTION.decode(b64decode(text, validate=True))
    except NsmError as error:
        raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Row:
    """A connection as agreed on: ``connection`` stands on our segment, with our answer's mechanism.

    ``next_type`` and ``next_parameters``: the mechanism towards the endpoint; ``url``: the next hop's.
    """

    intent: Intent
    client: Choice
    endpoint: Choice
    next_cls: str
    next_type: str
    next_parameters: dict[str, str]
    connection: Annotated[Connection, PlainSerializer(_pack), PlainValidator(_unpack)] = field(repr=False)
    url: str = ""

    @property
    def id(self) -> str:
        """Our own segment's id."""
        return self.intent.id


_ADAPTER: Final = TypeAdapter(Row)


def to_text(row: Row) -> str:
    """JSON."""
    return _ADAPTER.dump_json(row).decode()


def from_text(text: str) -> Row:
    """ValueError: not a row."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"not a stored connection: {error.error_count()} errors") from None  # it holds keys
