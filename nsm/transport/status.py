"""NsmError and gRPC statuses, both ways."""

from typing import Any, Final

import grpc

from nsm.model.errors import Code, NsmError

CODES: Final = {code: getattr(grpc.StatusCode, code.name) for code in Code}
_BY_NUMBER: Final = {code.value: code for code in Code}


def of_rpc_error(error: Any, reason: str = "") -> NsmError:
    """What a peer answered; ``reason`` is what our own transport knows of a connection that broke."""
    code = _BY_NUMBER.get(error.code().value[0], Code.UNKNOWN)
    message = error.details() or code.name
    if code is Code.UNAVAILABLE and reason:
        message = reason
    return NsmError(code, message)
