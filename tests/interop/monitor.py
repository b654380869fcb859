"""What a manager, ours or Go's, tells about its connections: MonitorConnections over our transport."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from nsm.model.connection import ConnectionEvent, EventType, MonitorScopeSelector
from nsm.model.path import PathSegment
from nsm.service.config import NsmSettings
from nsm.service.daemon import Node as MeshNode
from nsm.service.daemon import open_node
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.lab.identities import OPERATOR
from nsmctl.lab.topology import Node

from . import spire

PATIENCE = 40.0


def in_mesh(node: Node, name: str = OPERATOR) -> AbstractAsyncContextManager[MeshNode]:
    """This process as a member of the mesh, under an identity that the lab's node serves."""
    agent = spire.agent_socket(node)
    endpoint = f"unix://{agent}" if agent.exists() else ""
    return open_node(
        NsmSettings(name=name, identity_dir=str(node.identities), spiffe_endpoint_socket=endpoint)
    )


class News:
    """The events of one stream, in order; ``first`` is the one every stream begins with."""

    def __init__(self, first: ConnectionEvent, events: AsyncIterator[ConnectionEvent]) -> None:
        self._waiting = [first]
        self._events = events

    async def until(self, wanted: Callable[[ConnectionEvent], bool]) -> ConnectionEvent:
        """The next event that is ``wanted``."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event = self._waiting.pop() if self._waiting else await anext(self._events)
                if wanted(event):
                    return event

    async def deleted(self) -> None:
        """Until a connection was closed."""
        await self.until(lambda event: event.type is EventType.DELETE)

    async def established(self, count: int = 1) -> ConnectionEvent:
        """Until an event tells of so many connections at once; the first event may do so."""
        return await self.until(lambda event: len(event.connections) >= count)

    async def expiries(self, count: int, *, may_close: bool = False) -> list[int]:
        """Until the client's segment has had so many different expiries, told by as many Requests; in ns.

        ``may_close``: a client that heals may close the connection and make it anew.
        """
        seen: list[int] = []
        while len(seen) < count:
            event = await self.established()
            if event.type is EventType.DELETE:
                assert may_close, "the connection was closed"
                continue
            (connection,) = event.connections.values()
            expires = connection.route.segments[0].expires
            assert expires is not None
            if expires not in seen:
                seen.append(expires)
        return seen


@asynccontextmanager
async def news_of(node: Node, client: str) -> AsyncIterator[News]:
    """The stream of a node's manager about the connections that pass a segment named ``client``."""
    selector = MonitorScopeSelector(path_segments=(PathSegment(name=client),))
    async with (
        in_mesh(node) as mesh,
        aclosing(mesh.channels.get(node.manager).stream(MONITOR_CONNECTIONS, selector)) as events,
    ):
        async with asyncio.timeout(PATIENCE):
            first = await anext(events)  # before that, nobody has asked the manager yet
        assert first.type is EventType.INITIAL_STATE_TRANSFER
        yield News(first, events)
