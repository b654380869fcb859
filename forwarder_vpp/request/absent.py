"""Tells an endpoint that has died from a hop that is away: only the forwarder beside it can be sure."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError

_SOCKETS: Final = "unix:"


@contextmanager
def named_if_absent(endpoint: NetworkServiceEndpoint) -> Iterator[None]:
    """A call inside that finds nobody at the socket of the endpoint itself says so, by ``ENDPOINT_FIELD``.

    The client may then go to another one. Everything else (a manager of another node, no answer in time) raises as it
    is: who is away there may come back with the connection as it was.
    """
    try:
        yield
    except NsmError as error:
        is_deaf = isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError)
        if not is_deaf or not endpoint.url.startswith(_SOCKETS):
            raise
        text = f"endpoint {endpoint.name!r} is registered, but nobody listens on its socket: {error.message}"
        raise NsmError(Code.UNAVAILABLE, text, field=ENDPOINT_FIELD) from error
