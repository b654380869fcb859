"""Who stands where on a connection's path, and how a hop enters and leaves it (reference §3.1, §3.2).

A hop *steps* onto the path when a call arrives and *restores* the caller's place in the answer, so that each
hop reads its own id and index in every response it gets. Server and client half of one process use the same
name and therefore share one segment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from nsm.model.connection import Connection
from nsm.model.errors import invalid
from nsm.model.identity import Token
from nsm.model.path import Path, PathSegment

MAX_SEGMENTS: Final = 64
"""Longest path we accept or make; a longer one is a loop of hops."""

MAX_TOKEN_BYTES: Final = 16384
"""Longest token we accept in a segment or in metadata."""


@dataclass(frozen=True, slots=True)
class Return:
    """Where the caller stood: its segment's ``id`` and ``index``, and how many ``segments`` it sent."""

    id: str
    index: int
    segments: int


def check_path(connection: Connection) -> None:
    """Refuse a path no well-behaved hop sends; INVALID_ARGUMENT names the offending field.

    Checked: number of segments, index inside the path (0 when there is none), size of every token.
    """
    route = connection.route
    count = len(route.segments)
    if count > MAX_SEGMENTS:
        raise invalid("connection.path.path_segments", f"at most {MAX_SEGMENTS} segments", count)
    if not 0 <= route.index < max(count, 1):
        raise invalid("connection.path.index", f"an index of one of the {count} segments", route.index)
    for position, segment in enumerate(route.segments):
        size = len(segment.token.encode())
        if size > MAX_TOKEN_BYTES:
            where = f"connection.path.path_segments[{position}].token"
            raise invalid(where, f"at most {MAX_TOKEN_BYTES} bytes", size)


def step(connection: Connection, name: str, new_id: Callable[[], str]) -> tuple[Connection, Return]:
    """The connection as the hop ``name`` sees it, and the place to restore in the answer.

    No path: the hop starts one with the connection's id, or a new id. Already standing on a segment of its
    own name: it keeps that segment. Otherwise it moves one forward: a segment of its name keeps its id (a
    refresh), one of another name is taken over with a new id, and past the end a new one is appended.

    Raises:
        NsmError: INVALID_ARGUMENT for an index outside the path, a connection id other than the caller's
            segment id, or a path that would grow past ``MAX_SEGMENTS``.
    """
    route = connection.route
    count = len(route.segments)
    if not count:
        own = connection.id or new_id()
        path = replace(route, index=0, segments=(PathSegment(name=name, id=own),))
        return replace(connection, id=own, path=path), Return(own, 0, 0)
    caller = route.current
    if caller is None or route.index < 0:
        raise invalid("connection.path.index", f"an index of one of the {count} segments", route.index)
    ret = Return(caller.id, route.index, count)
    if caller.name == name:
        return replace(connection, id=caller.id), ret
    if caller.id != connection.id:
        raise invalid("connection.id", f"the id of segment {route.index}, {caller.id!r}", connection.id)
    path = _forward(route, name, new_id)
    return replace(connection, id=path.segments[path.index].id, path=path), ret


def _forward(route: Path, name: str, new_id: Callable[[], str]) -> Path:
    """The path with the index on the next segment, which bears ``name``."""
    index = route.index + 1
    segments = route.segments
    if index == len(segments):
        if index >= MAX_SEGMENTS:
            raise invalid("connection.path.path_segments", f"fewer than {MAX_SEGMENTS} hops", len(segments))
        segments = (*segments, PathSegment(name=name, id=new_id()))
    elif segments[index].name != name:
        taken = replace(segments[index], name=name, id=new_id())
        segments = (*segments[:index], taken, *segments[index + 1 :])
    return replace(route, index=index, segments=segments)


def restore(connection: Connection, ret: Return) -> Connection:
    """The answer as the caller must see it: its own id and index again.

    Raises:
        NsmError: INVALID_ARGUMENT when the answer's path lost or renumbered the caller's segment, which only
            a broken next hop does (the next refresh would be refused far away from the cause).
    """
    segments = connection.route.segments
    if ret.index >= len(segments):
        raise invalid("connection.path.path_segments", f"more than {ret.index} segments", len(segments))
    if segments[ret.index].id != ret.id:
        where = f"connection.path.path_segments[{ret.index}].id"
        raise invalid(where, f"the unchanged id {ret.id!r}", segments[ret.index].id)
    if connection.id == ret.id and connection.route.index == ret.index:
        return connection
    return replace(connection, id=ret.id, path=replace(connection.route, index=ret.index))


def trim(connection: Connection) -> Connection:
    """Cut the segments after our own: an endpoint must, a middle hop must not (trap 12)."""
    route = connection.route
    if len(route.segments) <= route.index + 1:
        return connection
    return replace(connection, path=replace(route, segments=route.segments[: route.index + 1]))


def put_tokens(connection: Connection, caller: Token | None, own: Token | None) -> Connection:
    """Write the caller's token into the previous segment and ours into our own, each with its expiry.

    ``None`` leaves that segment as it arrived: a call without token metadata is judged by what its path says.
    """
    route = connection.route
    index = route.index
    places = ((index - 1, caller if index else None), (index, own))
    new = {place: token for place, token in places if token and not _bears(_segment(route, place), token)}
    if not new:
        return connection
    segments = tuple(
        replace(segment, token=new[place].text, expires=new[place].expires) if place in new else segment
        for place, segment in enumerate(route.segments)
    )
    return replace(connection, path=replace(route, segments=segments))


def _bears(segment: PathSegment, token: Token) -> bool:
    """Whether that token is written there already, as in a refresh soon after another one."""
    return segment.token == token.text and segment.expires == token.expires


def put_metrics(connection: Connection, metrics: Mapping[str, str]) -> Connection:
    """Merge ``metrics`` into our own segment."""
    route = connection.route
    segment = _segment(route, route.index)
    merged = {**segment.metrics, **metrics}
    if merged == segment.metrics:
        return connection
    segment = replace(segment, metrics=merged)
    return replace(connection, path=_with_segment(route, route.index, segment))


def _segment(route: Path, index: int) -> PathSegment:
    if index >= len(route.segments):
        count = len(route.segments)
        raise invalid("connection.path.index", f"an index of one of the {count} segments", index)
    return route.segments[index]


def _with_segment(route: Path, index: int, segment: PathSegment) -> Path:
    return replace(route, segments=(*route.segments[:index], segment, *route.segments[index + 1 :]))
