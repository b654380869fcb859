"""The open MonitorConnections streams of one server (reference §3.6).

A change costs as much as it has watchers: nearly every selector names one segment by its id and is found by that.
A slow watcher holds at most one event a connection: a newer one takes the older one's place.
"""

import asyncio
from collections.abc import AsyncGenerator

from nsm.model.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm.session.monitor import MonitorTable, select


class _Stream:
    """One watcher: its selector and what it has not been told yet, by connection id."""

    def __init__(self, selector: MonitorScopeSelector) -> None:
        self.selector = selector
        self.waiting: dict[str, ConnectionEvent] = {}
        self.wake = asyncio.Event()

    @property
    def key(self) -> str:
        """The id of a segment that every selected connection has, "" = none."""
        return next((segment.id for segment in self.selector.path_segments if segment.id), "")

    def offer(self, key: str, event: ConnectionEvent) -> None:
        """Tell it, if it asked for that connection."""
        chosen = select(self.selector, event)
        if chosen is not None:
            self.waiting.pop(key, None)
            self.waiting[key] = chosen
            self.wake.set()


class Watchers:
    """A ``MonitorTable`` with the streams that watch it."""

    def __init__(self) -> None:
        self._table = MonitorTable()
        self._streams: dict[str, dict[int, _Stream]] = {}
        self._ended = False

    def __len__(self) -> int:
        """How many streams are open."""
        return sum(len(streams) for streams in self._streams.values())

    def update(self, connection: Connection) -> None:
        """The connection is now like this; watchers hear of a change only."""
        event = self._table.update(connection)
        if event is not None:
            self._tell(connection, event)

    def delete(self, connection_id: str) -> None:
        """The connection is gone."""
        event = self._table.delete(connection_id)
        if event is not None:
            self._tell(event.connections[connection_id], event)

    async def watch(self, selector: MonitorScopeSelector) -> AsyncGenerator[ConnectionEvent, None]:
        """INITIAL_STATE_TRANSFER at once, then what changes, until ``end``."""
        stream = _Stream(selector)
        group = self._streams.setdefault(stream.key, {})
        group[id(stream)] = stream
        try:
            yield self._table.initial(selector)
            while not self._ended:
                while stream.waiting:
                    yield stream.waiting.pop(next(iter(stream.waiting)))
                stream.wake.clear()
                if not self._ended:
                    await stream.wake.wait()
        finally:
            del group[id(stream)]
            if not group:
                self._streams.pop(stream.key, None)

    def end(self) -> None:
        """Every stream ends normally, as those of a server that goes away do."""
        self._ended = True
        for streams in self._streams.values():
            for stream in streams.values():
                stream.wake.set()

    def _tell(self, connection: Connection, event: ConnectionEvent) -> None:
        keys = dict.fromkeys(["", *(segment.id for segment in connection.route.segments)])
        for key in keys:
            for stream in self._streams.get(key, {}).values():
                stream.offer(connection.id, event)
