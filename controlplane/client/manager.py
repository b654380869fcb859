"""The manager as a client's next hop: Request under our policies, Close, news, and what it has of us already."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Final

from controlplane.client.wish import Wish
from nsm.model.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm.model.errors import Code, NsmError
from nsm.model.path import PathSegment
from nsm.policy.rules import is_unshown_key
from nsm.service.daemon import Node
from nsm.service.discovery import Discovery
from nsm.service.next_hop import NextHop
from nsm.service.registry import RegistryClient
from nsm.wire.methods import MONITOR_CONNECTIONS

FIND_TIMEOUT: Final = 5.0
"""Seconds for the manager's first event; it sends one at once, even an empty one."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for the Close of an answer that our policies refuse."""


class NsmManager:
    """One manager for all connections of a client called ``name``."""

    def __init__(self, name: str, url: str, node: Node, on_news: Callable[[str, Connection], None]) -> None:
        """``on_news`` is told a connection's id and the connection with the state the manager reports."""
        self._url = url
        self._node = node
        self._hop = NextHop(name, node.channels, on_event=on_news)

    async def find(self, wish: Wish) -> Connection | None:
        """The connection of that id as the manager has it, seen from its own segment."""
        selector = MonitorScopeSelector(path_segments=(PathSegment(name=wish.name, id=wish.id),))
        channel = self._node.channels.get(self._url)
        stream = channel.stream(MONITOR_CONNECTIONS, selector, timeout=FIND_TIMEOUT)
        async with aclosing(stream) as events:
            async for event in events:
                return _ours(event, wish)
        return None

    async def request(self, wish: Wish, connection: Connection, *, deadline: float) -> Connection:
        """Request it; an answer that our policies refuse is closed if it is a new connection."""
        answer = await self._asked(wish, connection, deadline)
        try:
            if not await self._judge(answer):
                answer = await self._asked(wish, answer, deadline)
                await self._judge(answer, is_last=True)
        except NsmError:
            if connection.mechanism is None:
                soon = asyncio.get_running_loop().time() + CLOSE_TIMEOUT
                with suppress(NsmError):
                    await self.close(wish, answer, deadline=soon)
            raise
        return answer

    async def _asked(self, wish: Wish, connection: Connection, deadline: float) -> Connection:
        try:
            return await self._hop.request(self._url, connection, wish.preferences, deadline=deadline)
        except TimeoutError as error:
            raise NsmError(Code.DEADLINE_EXCEEDED, f"no answer of {self._url} in time") from error

    async def _judge(self, answer: Connection, *, is_last: bool = False) -> bool:
        """Our policies on an answer; False = the manager rotated its SVID since we connected, so ask it once more."""
        channel = self._node.channels.get(self._url)
        peer = await channel.peer()
        try:
            self._node.policies.client(answer.route, peer.leaf)
        except NsmError as error:
            if is_last or not is_unshown_key(error):
                raise
            channel.outdate(peer)
            return False
        return True

    async def close(self, wish: Wish, connection: Connection, *, deadline: float) -> None:
        """Close it; the connection may be one that ``find`` gave."""
        if connection.id != wish.id:
            connection = wish.adopted(connection)
        await self._hop.close(self._url, connection, deadline=deadline)

    async def has_another(self, connection: Connection) -> bool:
        """Whether its service selects another registered endpoint than its own; False where nobody can tell."""
        registry = RegistryClient(self._node.channels, self._url, timeout=FIND_TIMEOUT)
        anyone = replace(connection, network_service_endpoint_name="")
        try:
            found = await Discovery(registry).candidates(anyone)
        except NsmError:
            return False
        finally:
            await registry.close()
        return any(each.name != connection.network_service_endpoint_name for each in found.endpoints)

    def forget(self, connection_id: str) -> None:
        """No more news about it, and its descriptors are closed."""
        self._hop.forget(connection_id)

    async def stop(self) -> None:
        """End the monitor streams."""
        await self._hop.stop()


def _ours(event: ConnectionEvent, wish: Wish) -> Connection | None:
    for connection in event.connections.values():
        segments = connection.route.segments
        if connection.route.index == 1 and segments and segments[0].id == wish.id:
            return connection
    return None
