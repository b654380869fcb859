"""NsmError to and from gRPC status codes; the two tables have the same names and numbers.

The field of an error travels in front of its message, where every peer can read it; ours find it there again.
"""

from typing import Final

import grpc
import grpc.aio

from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError

_TO_GRPC: Final[dict[Code, grpc.StatusCode]] = {code: grpc.StatusCode[code.name] for code in Code}


def to_grpc(code: Code) -> grpc.StatusCode:
    """The gRPC constant of a code."""
    return _TO_GRPC[code]


def from_grpc(error: grpc.aio.AioRpcError) -> NsmError:
    """The peer's status as our exception: same code, same detail."""
    code, detail = Code[error.code().name], error.details() or ""
    field, colon, message = detail.partition(": ")
    if colon and field == ENDPOINT_FIELD:
        return NsmError(code, message, field=field)
    return NsmError(code, detail)
