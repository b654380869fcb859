"""Who is told about which connection, and what a hop makes of what it is told (reference §3.6).

A server keeps its connections under its own segment's id, standing on its own segment (trap 13). A watcher names
them by a selector, usually by its own segment, which may be anywhere in their path (trap 15).
"""

from dataclasses import replace
from typing import Final

from nsm.model.connection import Connection, ConnectionEvent, EventType, MonitorScopeSelector, State
from nsm.model.path import PathSegment

_STATE_BY_EVENT: Final = {EventType.DELETE: State.DOWN}


def matches(selector: MonitorScopeSelector, connection: Connection) -> bool:
    """Whether the selector names the connection; an empty selector names all.

    ``network_services``: any of them, exactly. ``path_segments``: a contiguous run anywhere in the path, in
    which an empty name, id or token stands for any.
    """
    services = selector.network_services
    if services and connection.network_service not in services:
        return False
    wanted = selector.path_segments
    segments = connection.route.segments
    return any(
        all(_is_like(segments[start + offset], segment) for offset, segment in enumerate(wanted))
        for start in range(len(segments) - len(wanted) + 1)
    )


def _is_like(segment: PathSegment, wanted: PathSegment) -> bool:
    return (
        (not wanted.id or wanted.id == segment.id)
        and (not wanted.name or wanted.name == segment.name)
        and (not wanted.token or wanted.token == segment.token)
    )


class MonitorTable:
    """The connections of one server by its own segment's id; each change gives the event for the watchers."""

    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}

    def get(self, connection_id: str) -> Connection | None:
        """The connection as last told."""
        return self._connections.get(connection_id)

    def initial(self, selector: MonitorScopeSelector) -> ConnectionEvent:
        """The first event of a new stream: everything selected, be it nothing (trap 14)."""
        chosen = {key: value for key, value in self._connections.items() if matches(selector, value)}
        return ConnectionEvent(EventType.INITIAL_STATE_TRANSFER, chosen)

    def update(self, connection: Connection) -> ConnectionEvent | None:
        """The connection is now like this; ``None`` = as before, nothing to tell."""
        if self._connections.get(connection.id) == connection:
            return None
        self._connections[connection.id] = connection
        return ConnectionEvent(EventType.UPDATE, {connection.id: connection})

    def delete(self, connection_id: str) -> ConnectionEvent | None:
        """The connection is gone; ``None`` = it was not there."""
        connection = self._connections.pop(connection_id, None)
        return None if connection is None else ConnectionEvent(EventType.DELETE, {connection_id: connection})


def select(selector: MonitorScopeSelector, event: ConnectionEvent) -> ConnectionEvent | None:
    """The part of the event that the selector names; ``None`` = nothing of it."""
    chosen = {key: value for key, value in event.connections.items() if matches(selector, value)}
    if not chosen:
        return None
    return event if len(chosen) == len(event.connections) else replace(event, connections=chosen)


def follow(own: Connection, event: ConnectionEvent) -> Connection | None:
    """Our own connection after an event of the next hop; ``None`` = the event changes nothing of it.

    A connection of the event is ours if the segment at our index has our id, and the sender stands there (it
    shares our segment) or one further. Path, context and state come from it; a DELETE counts as DOWN. Of an event
    that is older than our last answer, which may overtake it, only the state.
    """
    followed = own
    for theirs in event.connections.values():
        if is_about(own, theirs):
            state = _STATE_BY_EVENT.get(event.type, theirs.state)
            followed = replace(followed, state=state)
            if _is_of_our_last_call(own, theirs):
                path = replace(theirs.route, index=own.route.index)
                followed = replace(followed, path=path, context=theirs.context)
    return None if followed == own else followed


def _is_of_our_last_call(own: Connection, theirs: Connection) -> bool:
    """Nobody but us changes the token of our segment, which comes with our calls."""
    current = own.route.current
    return current is None or theirs.route.segments[own.route.index].token == current.token


def is_about(own: Connection, theirs: Connection) -> bool:
    """Whether the next hop's connection is the continuation of ours: found by index, never by name."""
    index = own.route.index
    segments = theirs.route.segments
    return index < len(segments) and segments[index].id == own.id and theirs.route.index in (index, index + 1)
