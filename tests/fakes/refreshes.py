"""Waits for refreshes of a client's connection, as its manager's monitor tells of them.

``python -m tests.fakes.refreshes URL IDENTITIES ID TIMES SECONDS`` does that in a process of its own.
"""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

from nsm.model.connection import EventType, MonitorScopeSelector
from nsm.service.config import NsmSettings
from nsm.service.daemon import open_node
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.lab import identities


async def tokens(url: str, directory: Path, connection_id: str, times: int, seconds: float) -> list[str]:
    """The client's tokens once it has asked again ``times`` times. TimeoutError after ``seconds``."""
    settings = NsmSettings(name=identities.OPERATOR, identity_dir=str(directory), dial_timeout=10.0)
    seen: dict[str, None] = {}
    async with open_node(settings) as node, asyncio.timeout(seconds):
        stream = node.channels.get(url).stream(MONITOR_CONNECTIONS, MonitorScopeSelector())
        async with aclosing(stream) as events:
            async for event in events:
                for connection in event.connections.values():
                    first = connection.route.segments[0]
                    if first.id == connection_id and event.type is not EventType.DELETE:
                        seen[first.token] = None
                if len(seen) > times:
                    break
    return list(seen)


if __name__ == "__main__":
    _, url, directory, connection_id, times, seconds = sys.argv
    asyncio.run(tokens(url, Path(directory), connection_id, int(times), float(seconds)))
