"""A forwarder that cannot do its work yet: it listens, says NOT_SERVING, and refuses every call with the reason."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import structlog

from nsm.model.connection import Connection, ConnectionEvent, MonitorScopeSelector, NetworkServiceRequest
from nsm.model.errors import Code, NsmError
from nsm.service.daemon import Node
from nsm.transport.call import Call
from nsm.transport.server import Server
from nsm.wire.methods import MONITOR_CONNECTIONS, NETWORK_SERVICE_CLOSE, NETWORK_SERVICE_REQUEST

_LOG: Final = structlog.get_logger(__name__)


@asynccontextmanager
async def refusing(node: Node, urls: Sequence[str], reason: str) -> AsyncIterator[None]:
    """Refuse with UNAVAILABLE and ``reason`` at ``urls`` while the block runs; the URLs are free afterwards."""
    _LOG.warning("not.serving", reason=reason)
    server = _server(node, reason)
    await server.start(urls)
    server.set_serving(False)
    try:
        yield
    finally:
        await server.stop()


def _server(node: Node, reason: str) -> Server:
    def refuse() -> NoReturn:
        raise NsmError(Code.UNAVAILABLE, reason)

    async def request(_request: NetworkServiceRequest, _call: Call) -> Connection:
        refuse()

    async def close(_connection: Connection, _call: Call) -> None:
        refuse()

    def monitor(_selector: MonitorScopeSelector, _call: Call) -> AsyncIterator[ConnectionEvent]:
        refuse()

    server = Server(node.identity)
    server.unary(NETWORK_SERVICE_REQUEST, request)
    server.unary(NETWORK_SERVICE_CLOSE, close)
    server.stream(MONITOR_CONNECTIONS, monitor)
    return server
