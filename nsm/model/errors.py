"""The one exception type of the mesh: a gRPC status without gRPC."""

from enum import Enum
from typing import Final

ENDPOINT_FIELD: Final = "connection.network_service_endpoint_name"
"""The field of an error about the endpoint itself, found by a hop before it: all hops up to there answer."""


class Code(Enum):
    """gRPC status codes by name and number (google.rpc.Code); kept here so that pure rooms need no grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class NsmError(Exception):
    """A failed operation as the peer sees it: a status code and one sentence that says what to do.

    ``field`` names the offending request field (``mechanism.parameters.name``) where there is one.
    """

    def __init__(self, code: Code, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    def __str__(self) -> str:
        """``CODE: field: message``, the form shown to people."""
        place = f"{self.field}: " if self.field else ""
        return f"{self.code.name}: {place}{self.message}"

    @property
    def detail(self) -> str:
        """The status message put on the wire: ``field: message``."""
        return f"{self.field}: {self.message}" if self.field else self.message


def invalid(field: str, expected: str, got: object) -> NsmError:
    """INVALID_ARGUMENT that names the field, what was expected and what arrived."""
    return NsmError(Code.INVALID_ARGUMENT, f"expected {expected}, got {got!r}", field=field)


def denied(rule: str, reason: str) -> NsmError:
    """PERMISSION_DENIED by the policy rule of that name."""
    return NsmError(Code.PERMISSION_DENIED, f"{reason} (rule {rule})", field=rule)
