"""The client half of a middle hop, or of a client: Request, Close and the news of the next hop (reference §3.6, §3.12).

News comes over one MonitorConnections stream per next hop, whose selector is a segment of our name; to which connection
an event belongs is decided by id and index, so a path that passes us several times is no different. One stream
instead of one a connection makes the cost of a connection independent of how many there are.

When a stream breaks, it is opened again once and at once. Its first event lists what the next hop knows: connections
in it go on without a word (the next hop restarted, or only the transport was replaced), the others are DOWN. Does
that one try fail, everything behind that hop is DOWN: whoever waits longer to be sure only delays the client, which
checks its data path anyway and then asks again without cutting it. Opening is tried on in the background; a next hop
that comes back with the connections it had makes them UP again. CANCELLED says nothing about connections: the stream
is opened again, and only failing at that is news.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    MonitorScopeSelector,
    NetworkServiceRequest,
    State,
)
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, Mechanism
from nsm.model.path import PathSegment
from nsm.service import fds
from nsm.session.monitor import follow, is_about
from nsm.session.path import Return, restore
from nsm.session.timing import RETRY_DELAY
from nsm.transport.channel import Channel, Channels, Reply
from nsm.transport.peer import Peer
from nsm.wire.methods import MONITOR_CONNECTIONS, NETWORK_SERVICE_CLOSE, NETWORK_SERVICE_REQUEST

FIRST_EVENT_TIMEOUT: Final = 2.0
"""Seconds for the first event of a stream; every server sends it at once."""

LONGEST_PAUSE: Final = 2.0
"""Seconds between tries to reach a next hop that is away."""

OLD_HOP_TIMEOUT: Final = 5.0
"""Seconds for the Close at a hop that a connection has left."""

_LOG: Final = structlog.get_logger()


@dataclass(slots=True, eq=False)
class _Followed:
    """One connection of ours at a next hop; ``connection`` is ``None`` until the first answer."""

    url: str
    connection: Connection | None = None
    in_flight: int = 0
    since: float = 0.0
    pending: ConnectionEvent | None = None
    box: fds.Box = field(default_factory=fds.Box)


@dataclass(slots=True, eq=False)
class _Watch:
    """The stream to one URL, and the ids that need it."""

    task: asyncio.Task[None]
    ids: set[str]


class NextHop:
    """Calls next hops under our ``name``; connections stand on our segment, both ways.

    ``on_event(own id, connection)`` re-emits news: path, context and state are those of the next hop.
    """

    def __init__(
        self, name: str, channels: Channels, on_event: Callable[[str, Connection], None] | None = None
    ) -> None:
        self._selector = MonitorScopeSelector(path_segments=(PathSegment(name=name),))
        self._channels = channels
        self._on_event = on_event
        self._followed: dict[str, _Followed] = {}
        self._watches: dict[str, _Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def request(
        self, url: str, connection: Connection, preferences: Sequence[Mechanism], *, deadline: float
    ) -> Connection:
        """The next hop's answer on our segment; ``deadline`` is a time of the event loop.

        ``file:///…`` in mechanisms leaves as a descriptor. One that comes back is ``file:///proc/self/fd/N``, open
        until the inbound call that this is part of has been answered; without such a call until ``close``,
        ``forget`` or the next answer.

        Raises:
            NsmError: of the next hop or the transport; INVALID_ARGUMENT or INTERNAL for an answer that no longer
                has our segment. A new connection that is refused for its answer has been closed.
        """
        entry = self._followed.setdefault(connection.id, _Followed(url))
        entry.in_flight += 1
        entry.pending = None
        try:
            answer = await self._call(url, connection, preferences, deadline, entry)
        except BaseException:
            entry.in_flight -= 1
            self._resume(connection.id, entry, answered=False)
            raise
        entry.in_flight -= 1
        self._established(url, answer, entry)
        return answer

    async def close(self, url: str, connection: Connection, *, deadline: float) -> None:
        """Close at the next hop and forget; NsmError of the next hop or the transport."""
        entry = self._followed.pop(connection.id, None)
        if entry is not None:
            self._unwatch(entry.url, connection.id)
        try:
            channel = self._channels.get(url)
            peer = await _peer(channel, deadline)
            with fds.Departures(passes_fds=peer.passes_fds, may_miss=True) as leaving:
                sent = leaving.connection(connection)
                descriptors = tuple(leaving.fds)
                await channel.unary(NETWORK_SERVICE_CLOSE, sent, timeout=_left(deadline), fds=descriptors)
        finally:
            if entry is not None:
                entry.box.close()

    async def leave(self, url: str, connection: Connection, *, deadline: float) -> None:
        """Close at a hop that the connection has left; it is followed where it is now. Errors as of ``close``."""
        with fds.Departures(passes_fds=False) as leaving:
            sent = leaving.connection(connection)
            await self._channels.get(url).unary(NETWORK_SERVICE_CLOSE, sent, timeout=_left(deadline))

    def forget(self, connection_id: str) -> None:
        """No more news of it; its descriptors are closed."""
        entry = self._followed.pop(connection_id, None)
        if entry is not None:
            entry.box.close()
            self._unwatch(entry.url, connection_id)

    async def stop(self) -> None:
        """End every stream; connections stay as they are."""
        for connection_id in tuple(self._followed):
            self.forget(connection_id)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- calls ---------------------------------------------------------------------------------------

    async def _call(
        self,
        url: str,
        connection: Connection,
        preferences: Sequence[Mechanism],
        deadline: float,
        entry: _Followed,
    ) -> Connection:
        channel = self._channels.get(url)
        peer = await _peer(channel, deadline)
        with fds.Departures(passes_fds=peer.passes_fds) as leaving:
            request = NetworkServiceRequest(leaving.connection(connection), leaving.mechanisms(preferences))
            reply = await self._asked(channel, request, leaving, deadline)
            try:
                ours = _on_our_segment(reply.value, connection)
                if peer.passes_fds and _names_a_path(ours):
                    # Upstream's sendfd takes a descriptor that left at once for one that failed to, and leaves its own
                    # path in the answer; what it says next time is right.
                    _LOG.info("next_hop.asked_again", connection=ours.id, reason="its answer names a path")
                    reply = await self._asked(channel, _refresh(request, ours), leaving, deadline)
                    ours = _on_our_segment(reply.value, connection)
                receive = _receiver(channel, deadline) if peer.passes_fds else None
                _let_go(channel, ours, leaving)
                return await self._with_file(ours, leaving, receive, entry)
            except NsmError:
                if entry.connection is None:
                    self._spawn(self._depart(url, reply.value))
                raise

    async def _asked(
        self, channel: Channel, request: NetworkServiceRequest, leaving: fds.Departures, deadline: float
    ) -> Reply[Connection]:
        left = _left(deadline)
        return await channel.unary(NETWORK_SERVICE_REQUEST, request, timeout=left, fds=tuple(leaving.fds))

    async def _with_file(
        self,
        answer: Connection,
        leaving: fds.Departures,
        receive: fds.Receive | None,
        entry: _Followed,
    ) -> Connection:
        """The answer with a file for its ``inode://``: one of ours again, or the descriptor that came with it.

        ``receive``: ``None`` over TCP, where waiting for a descriptor would be in vain. A path of the next hop's is
        left out.
        """
        mechanism = answer.mechanism
        url = mechanism.get(INODE_URL) if mechanism else ""
        if mechanism is None or not url.startswith((fds.INODE, fds.FILE)):
            return answer
        if receive is None or url.startswith(fds.FILE):
            return replace(answer, mechanism=mechanism.without(INODE_URL))
        file = leaving.file(url)
        if file is None:
            fd = await receive(url)
            box = fds.CURRENT.get()
            if box is None:
                entry.box.close()
                box = entry.box
            file = box.keep(fd)
        return replace(answer, mechanism=mechanism.having(**{INODE_URL: file}))

    def _established(self, url: str, answer: Connection, entry: _Followed) -> None:
        """Follow the connection from now on at ``url``, and nowhere else."""
        if self._followed.get(answer.id) is not entry:
            return  # closed or forgotten meanwhile
        before, left = entry.connection, entry.url
        entry.connection = answer if answer.state is State.UP else replace(answer, state=State.UP)
        entry.since = asyncio.get_running_loop().time()
        if left != url:
            entry.url = url
            self._unwatch(left, answer.id)
            if before is not None and before.route.following_id != answer.route.following_id:
                self._spawn(self._depart(left, before))
        self._watch(url, answer.id)
        self._resume(answer.id, entry, answered=True)

    def _resume(self, connection_id: str, entry: _Followed, *, answered: bool) -> None:
        """After a Request: what came meanwhile, of which only the last word counts.

        An answer outdates every event but one about the very path it gave.
        """
        if entry.in_flight:
            return
        if entry.connection is None:
            if self._followed.get(connection_id) is entry:
                self.forget(connection_id)
            return
        event, entry.pending = entry.pending, None
        if event is not None and (not answered or _is_of(event, entry.connection)):
            self._take(connection_id, entry, event)

    async def _depart(self, url: str, connection: Connection) -> None:
        """Close at a hop we no longer use, as well as we can; its token expires otherwise."""
        deadline = asyncio.get_running_loop().time() + OLD_HOP_TIMEOUT
        try:
            await self.leave(url, connection, deadline=deadline)
        except NsmError as error:
            _LOG.info("next_hop.not_closed", url=url, connection=connection.id, reason=str(error))

    # -- news ----------------------------------------------------------------------------------------

    def _watch(self, url: str, connection_id: str) -> None:
        if self._on_event is None:
            return
        watch = self._watches.get(url)
        if watch is None:
            ids: set[str] = set()
            watch = self._watches[url] = _Watch(self._spawn(self._listen(url, ids)), ids)
        watch.ids.add(connection_id)

    def _unwatch(self, url: str, connection_id: str) -> None:
        watch = self._watches.get(url)
        if watch is None:
            return
        watch.ids.discard(connection_id)
        if not watch.ids:
            del self._watches[url]
            watch.task.cancel()

    async def _listen(self, url: str, ids: set[str]) -> None:
        """Keep the stream to ``url`` open for as long as an id needs it (the module says what a break means)."""
        loop = asyncio.get_running_loop()
        is_first, is_down, pause = True, False, 0.0
        while True:
            opened = loop.time()
            worked, reason = await self._one_stream(url, ids, None if is_first else opened)
            if worked:
                is_down, pause = False, max(0.0, RETRY_DELAY - (loop.time() - opened))
            elif is_first:
                pause = 0.0
            else:
                if not is_down and reason is not Code.CANCELLED:
                    is_down = True
                    self._down(ids)
                pause = min(LONGEST_PAUSE, max(RETRY_DELAY, 2 * pause))
            is_first = False
            await asyncio.sleep(pause)

    async def _one_stream(self, url: str, ids: set[str], opened: float | None) -> tuple[bool, Code]:
        """One stream until it breaks: whether it began at all, and the code it ended with.

        ``opened``: loop time of an opening that is not the first; connections older than that, and unknown to the
        next hop, are DOWN. The very first time upstream tolerates that, so do we.
        """
        worked, code = False, Code.OK
        try:
            async with aclosing(
                self._channels.get(url).stream(MONITOR_CONNECTIONS, self._selector)
            ) as events:
                async with asyncio.timeout(FIRST_EVENT_TIMEOUT):
                    event = await anext(events)
                worked = True
                if opened is not None:
                    self._down(ids - set(self._named(url, event)), older_than=opened)
                self._event(url, event)
                async for event in events:
                    self._event(url, event)
        except NsmError as error:
            code = error.code
            _LOG.debug("next_hop.stream_broke", url=url, reason=str(error))
        except (StopAsyncIteration, TimeoutError) as error:
            _LOG.debug("next_hop.stream_without_event", url=url, reason=type(error).__name__)
        return worked, code

    def _named(self, url: str, event: ConnectionEvent) -> Iterator[str]:
        """Our ids that the event is about."""
        for theirs in event.connections.values():
            for connection_id, entry in self._entries(url, theirs):
                if entry.connection is not None and is_about(entry.connection, theirs):
                    yield connection_id

    def _entries(self, url: str, theirs: Connection) -> Iterator[tuple[str, _Followed]]:
        """Those of our connections at ``url`` whose id stands at the sender's place or the one before."""
        index = theirs.route.index
        for segment in theirs.route.segments[max(0, index - 1) : index + 1]:
            entry = self._followed.get(segment.id)
            if entry is not None and entry.url == url:
                yield segment.id, entry

    def _event(self, url: str, event: ConnectionEvent) -> None:
        """Hand each connection of the event to ours; during a Request only the last word is kept."""
        for key, theirs in event.connections.items():
            one = replace(event, connections={key: theirs})
            for connection_id, entry in tuple(self._entries(url, theirs)):
                if entry.in_flight:
                    entry.pending = one
                else:
                    self._take(connection_id, entry, one)

    def _take(self, connection_id: str, entry: _Followed, event: ConnectionEvent) -> None:
        if entry.connection is None:
            return
        followed = follow(entry.connection, event)
        if followed is not None:
            self._tell(connection_id, entry, followed)

    def _down(self, ids: set[str], *, older_than: float = math.inf) -> None:
        """DOWN for these; one with a Request under way learns from that Request how it stands."""
        for connection_id in tuple(ids):
            entry = self._followed.get(connection_id)
            if entry is None or entry.connection is None or entry.in_flight or entry.since > older_than:
                continue
            if entry.connection.state != State.DOWN:
                self._tell(connection_id, entry, replace(entry.connection, state=State.DOWN))

    def _tell(self, connection_id: str, entry: _Followed, connection: Connection) -> None:
        entry.connection = connection
        assert self._on_event is not None
        try:
            self._on_event(connection_id, connection)
        except Exception:  # noqa: BLE001 - one connection's trouble must not end the news of all others
            _LOG.error("next_hop.event_failed", connection=connection_id, exc_info=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("next_hop.task_broke", exc_info=error)


def _names_a_path(answer: Connection) -> bool:
    return answer.mechanism is not None and answer.mechanism.get(INODE_URL).startswith(fds.FILE)


def _refresh(request: NetworkServiceRequest, answer: Connection) -> NetworkServiceRequest:
    """The same asked of the connection that there is by now."""
    mechanism = None if answer.mechanism is None else answer.mechanism.without(INODE_URL)
    return replace(request, connection=replace(answer, mechanism=mechanism))


def _on_our_segment(answer: Connection, asked: Connection) -> Connection:
    """The answer, if the next hop kept our place in the path (reference §3.1)."""
    route = asked.route
    kept = restore(answer, Return(asked.id, route.index, len(route.segments)))
    if answer.id != asked.id or answer.route.index != route.index:
        where = f"{asked.id!r} at index {route.index}, got {answer.id!r} at {answer.route.index}"
        raise NsmError(
            Code.INTERNAL, f"expected the next hop's answer with our place {where}", field="connection.id"
        )
    return kept


def _let_go(channel: Channel, answer: Connection, leaving: fds.Departures) -> None:
    """Our own descriptor that the next hop sent back, as upstream's manager does, is not asked for."""
    url = answer.mechanism.get(INODE_URL) if answer.mechanism else ""
    if leaving.file(url) is not None:
        channel.release_fd(url)


def _receiver(channel: Channel, deadline: float) -> fds.Receive:
    """Takes descriptors that the answer brought, until ``deadline``."""

    async def receive(url: str) -> int:
        left = _left(deadline)
        return await channel.receive_fd(url, left)

    return receive


def _is_of(event: ConnectionEvent, connection: Connection) -> bool:
    """Whether the event tells of exactly the path of the connection, tokens included."""
    return any(_segments(theirs) == _segments(connection) for theirs in event.connections.values())


def _segments(connection: Connection) -> tuple[tuple[str, str], ...]:
    return tuple((segment.id, segment.token) for segment in connection.route.segments)


async def _peer(channel: Channel, deadline: float) -> Peer:
    """Who answers there; dialled if need be. NsmError DEADLINE_EXCEEDED, or the reason of the transport."""
    if (peer := channel.connected) is not None:
        return peer
    try:
        async with asyncio.timeout_at(deadline):
            return await channel.peer()
    except TimeoutError as error:
        raise NsmError(Code.DEADLINE_EXCEEDED, "the next hop did not answer the dial in time") from error


def _left(deadline: float) -> float:
    """Seconds until ``deadline`` (loop time). NsmError DEADLINE_EXCEEDED when there are none."""
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:
        raise NsmError(Code.DEADLINE_EXCEEDED, "no time left for the next hop")
    return left
