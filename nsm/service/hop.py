"""The server half of every hop: NetworkService and MonitorConnection around one ``Role`` (reference §3.15).

``HopServer`` owns the protocol (path, tokens, policies, queue, expiry, monitor, descriptors); what a connection *is*
here is decided by the role: an endpoint's addresses, a forwarder's dataplane, a manager's choice of forwarder.
"""

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, TypeVar
from uuid import uuid4

import structlog

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    MonitorScopeSelector,
    NetworkServiceRequest,
    State,
)
from nsm.model.errors import Code, NsmError
from nsm.model.identity import TokenSource
from nsm.model.mechanism import INODE_URL, Mechanism
from nsm.model.path import Path
from nsm.policy.rules import Policies
from nsm.service import fds
from nsm.service.arrival import Arrival, Gate
from nsm.service.lanes import Lanes
from nsm.service.timers import Expiries
from nsm.service.watchers import Watchers
from nsm.session.begin import Admission, BeginTable, EntryState
from nsm.session.path import restore, trim
from nsm.session.timing import REQUEST_TIMEOUT, close_time
from nsm.transport.call import Call
from nsm.transport.peer import Peer
from nsm.transport.server import Server
from nsm.wire.methods import MONITOR_CONNECTIONS, NETWORK_SERVICE_CLOSE, NETWORK_SERVICE_REQUEST

MARGIN: Final = 0.25
"""Seconds before the caller's deadline at which a role must be done, so that the reason still reaches the caller;
never more than a twentieth of what is left."""

DESCRIPTOR_WAIT: Final = 2.0
"""Seconds a Close waits for a descriptor: it is a help, the connection is closed without it too."""

STOP_GRACE: Final = 2.0
"""Seconds for calls under way when the server stops."""

_STILL_UP: Final = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.OUT_OF_RANGE,
        Code.ALREADY_EXISTS,
        Code.FAILED_PRECONDITION,
        Code.RESOURCE_EXHAUSTED,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.CANCELLED,
    }
)
"""A refresh refused like this was refused for what it asked; the connection itself is as good as before. Upstream
reports DOWN for these too, and a client without a liveness check then cuts a connection that carries packets."""

_LOG: Final = structlog.get_logger()

Reason = Literal["call", "expired", "reselect", "denied", "role", "rollback"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A Request as the role sees it.

    ``connection`` stands on our segment, tokens written, authorised. Every ``inodeURL`` whose descriptor arrived is
    ``file:///proc/self/fd/N``, open until the call ends. ``stored`` is what was last agreed (its ``inodeURL`` as on
    the wire), ``peer`` the caller, ``deadline`` a time of the event loop.
    """

    connection: Connection
    preferences: tuple[Mechanism, ...]
    is_refresh: bool
    stored: Connection | None
    peer: Peer | None
    deadline: float

    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a connection: ``connection`` is the stored one, with the newest tokens in its path.

    ``arrived`` is that of the Close call, ``inodeURL`` as ``file:///…``; ``None`` where there was no call.
    ``rollback``: the Request succeeded here, but its answer could not be given.
    """

    connection: Connection
    arrived: Connection | None
    reason: Reason
    deadline: float

    def remaining(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self.deadline - asyncio.get_running_loop().time())


class Role(Protocol):
    """What a hop does with connections. Calls for one connection come one after the other."""

    async def request(self, incoming: Incoming) -> Connection:
        """The answer, on our segment; ``inodeURL`` is ``file:///path`` where a descriptor shall go back.

        A failure (NsmError, or cancellation at the deadline) leaves what was there before.
        """

    async def close(self, closing: Closing) -> None:
        """Give up everything of the connection; it is forgotten even if this fails."""


@dataclass(slots=True)
class _Call:
    """One inbound call under way: ``deadline`` is the caller's, ``role_deadline`` a little before it."""

    call: Call
    remaining: float | None
    deadline: float
    role_deadline: float
    is_abandoned: bool = False

    @classmethod
    def of(cls, call: Call) -> "_Call":
        """Times from the caller's deadline; 15 s where it has none."""
        remaining = call.remaining()
        left = REQUEST_TIMEOUT if remaining is None else max(0.0, remaining)
        now = asyncio.get_running_loop().time()
        return cls(call, remaining, now + left, now + left - min(MARGIN, left / 20))

    def is_too_late(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.is_abandoned or asyncio.get_running_loop().time() >= self.deadline

    async def receive(self, url: str, limit: float = math.inf) -> int:
        """A descriptor of this call, waited for until the role's deadline, ``limit`` seconds at most."""
        left = self.role_deadline - asyncio.get_running_loop().time()
        return await self.call.receive_fd(url, max(0.0, min(left, limit)))


class HopServer:
    """Serves NetworkService and MonitorConnection under ``name`` for one role.

    ``is_endpoint``: the path ends here. ``is_forgetful``: connections do not outlive this process, but a Close of one
    that is unknown carries a path, and the role closes where that leads to; who may, the next hop decides.
    ``clock`` gives Unix seconds and is read only when a call arrives.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        *,
        tokens: TokenSource,
        policies: Policies,
        is_endpoint: bool,
        is_forgetful: bool = False,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._role = role
        self._is_endpoint = is_endpoint
        self._is_forgetful = is_forgetful
        self._clock = clock
        self._gate = Gate(name, tokens, policies, new_id)
        self._table = BeginTable()
        self._lanes = Lanes()
        self._watchers = Watchers()
        self._expiries = Expiries(self._on_expired)
        self._patience: dict[str, float] = {}
        self._running: set[asyncio.Task[Any]] = set()

    def serve(self, server: Server) -> None:
        """Add Request, Close and MonitorConnections to the server."""
        server.unary(NETWORK_SERVICE_REQUEST, self.request)
        server.unary(NETWORK_SERVICE_CLOSE, self.close)
        server.stream(MONITOR_CONNECTIONS, self.monitor)

    def connections(self) -> tuple[Connection, ...]:
        """Every established connection, on our segment."""
        return self._table.connections()

    def publish(self, connection_id: str, change: Callable[[Connection], Connection]) -> None:
        """Tell the watchers that an established connection is now ``change(connection)``; unknown ids are ignored.

        What changed besides the state (path, context) is also what a later Close is told.
        """
        stored = self._table.stored(connection_id)
        if stored is None or self._table.state(connection_id) is not EntryState.ESTABLISHED:
            return
        changed = change(stored)
        self._table.on_success(connection_id, changed, event=True)
        self._watchers.update(changed)

    def adopt(self, connection: Connection, remaining: float) -> None:
        """Take over a connection of a former process of ours: it can be watched, refreshed and closed again.

        ``connection`` stands on our segment; it is closed after ``remaining`` seconds unless it is refreshed.
        """
        self._table.on_request(connection.id, replace(connection, state=State.UP))
        agreed = self._table.on_success(connection.id, connection)
        assert agreed is not None
        self._watchers.update(agreed)
        self._expiries.arm(connection.id, asyncio.get_running_loop().time() + max(0.0, remaining))

    async def close_connection(self, connection_id: str, reason: Reason) -> None:
        """As if its caller had closed it; NsmError of the role. An unknown id is no error."""
        await self._spawn(self._close_stored(connection_id, reason))

    async def stop(self) -> None:
        """End streams and timers; connections stay as they are. Calls under way get ``STOP_GRACE`` seconds."""
        self._expiries.clear()
        self._watchers.end()
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_GRACE)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        self._expiries.clear()

    async def request(self, request: NetworkServiceRequest, call: Call) -> Connection:
        """``NetworkService/Request``."""
        current = _Call.of(call)
        mechanisms = (*request.mechanism_preferences, request.connection.mechanism)
        return await self._outlive(_letting_go(self._request(request, current), call, mechanisms), current)

    async def close(self, connection: Connection, call: Call) -> None:
        """``NetworkService/Close``."""
        current = _Call.of(call)
        work = _letting_go(self._close(connection, current), call, (connection.mechanism,))
        return await self._outlive(work, current)

    def monitor(self, selector: MonitorScopeSelector, call: Call) -> AsyncGenerator[ConnectionEvent, None]:
        """``MonitorConnection/MonitorConnections``."""
        del call
        return self._watchers.watch(selector)

    # -- Request -------------------------------------------------------------------------------------

    async def _request(self, request: NetworkServiceRequest, current: _Call) -> Connection:
        arrival = self._gate.enter(request.connection, current.call, "Request")
        connection = arrival.connection
        wait = close_time(connection.route, now := self._clock(), current.remaining) - now
        started = asyncio.get_running_loop().time()
        async with self._lanes.turn(connection.id, current.role_deadline):
            if current.is_too_late():
                raise NsmError(Code.CANCELLED, "the caller has gone")
            self._gate.admit(arrival, self._table.stored(connection.id), current.call, "Request")
            admission = self._table.on_request(connection.id, connection)
            try:
                answer = await self._admitted(request, arrival, admission, current)
            except BaseException:
                self._table.on_failure(connection.id)
                if self._table.stored(connection.id) is None:
                    self._forget(connection.id)
                raise
            self._expiries.arm(connection.id, started + wait)
            self._patience[connection.id] = current.deadline - started
            return answer

    async def _admitted(
        self, request: NetworkServiceRequest, arrival: Arrival, admission: Admission, current: _Call
    ) -> Connection:
        """One Request in its turn: what was agreed on is stored and told, the caller's answer returned."""
        own = admission.connection
        if admission.must_close_first:
            await self._reselect(own, current)
        box = fds.Box()
        fds.CURRENT.set(box)
        try:
            arrivals = fds.Arrivals(current.receive, box, passes_fds=current.call.peer.passes_fds)
            connection, preferences = await arrivals.take(own, request.mechanism_preferences)
            stored = self._table.stored(own.id) if admission.is_refresh else None
            incoming = Incoming(
                connection,
                preferences,
                admission.is_refresh,
                stored,
                current.call.peer,
                current.role_deadline,
            )
            built = await self._ask(incoming, current.deadline)
            try:
                return self._answer(built, arrival, current, is_refresh=admission.is_refresh)
            except BaseException:
                if not admission.is_refresh:
                    await self._roll_back(built)
                raise
        finally:
            box.close()

    def _answer(self, built: Connection, arrival: Arrival, current: _Call, *, is_refresh: bool) -> Connection:
        """Store and tell what the role built; the answer with the caller's id and index."""
        own = arrival.connection
        _check_built(built, own)
        if self._is_endpoint:
            built = trim(built)
        if current.is_too_late() and not is_refresh:
            raise NsmError(Code.CANCELLED, "the caller went away before it was answered")
        if built.state is not State.UP:
            built = replace(built, state=State.UP)
        sent = _with_descriptor(built, current.call)
        answer = restore(sent, arrival.ret)
        agreed = self._table.on_success(own.id, sent)
        if agreed is None:
            raise NsmError(Code.ABORTED, f"connection {own.id} was closed meanwhile")
        self._watchers.update(agreed)
        return answer

    async def _ask(self, incoming: Incoming, deadline: float) -> Connection:
        """The role's answer; a refresh that fails on the way makes a middle hop's connection DOWN (reference §3.6)."""
        try:
            return await _in_time(self._role.request(incoming), deadline)
        except NsmError as error:
            stored = incoming.stored
            if stored is not None and not self._is_endpoint and error.code not in _STILL_UP:
                self._watchers.update(replace(stored, state=State.DOWN))
            raise

    async def _reselect(self, connection: Connection, current: _Call) -> None:
        """Drop what is stored before another endpoint is chosen; watchers hear of the outcome only."""
        stored = self._table.stored(connection.id)
        assert stored is not None
        self._expiries.disarm(connection.id)
        closing = Closing(_freshened(stored, connection), None, "reselect", current.role_deadline)
        try:
            await _in_time(self._role.close(closing), current.deadline)
        except NsmError as error:
            _LOG.warning("reselect.close_failed", connection=connection.id, reason=str(error))

    async def _roll_back(self, built: Connection) -> None:
        """Undo a Request that succeeded but cannot be answered, in a time of its own (reference §3.4)."""
        deadline = asyncio.get_running_loop().time() + REQUEST_TIMEOUT
        try:
            await _in_time(self._role.close(Closing(built, None, "rollback", deadline)), deadline)
        except NsmError as error:
            _LOG.error("rollback.failed", connection=built.id, reason=str(error))

    # -- Close ---------------------------------------------------------------------------------------

    async def _close(self, connection: Connection, current: _Call) -> None:
        arrival = self._gate.enter(connection, current.call, "Close")
        own = arrival.connection
        async with self._lanes.turn(own.id, current.role_deadline):
            self._gate.admit(arrival, self._table.stored(own.id), current.call, "Close")
            stored = self._table.on_close(own.id) or (own if self._is_forgetful else None)
            if stored is None:
                return
            box = fds.Box()
            fds.CURRENT.set(box)
            try:
                arrived = await self._arrived(own, current, box)
                closing = Closing(_freshened(stored, own), arrived, "call", current.role_deadline)
                await self._end(closing)
            finally:
                box.close()

    async def _arrived(self, own: Connection, current: _Call, box: fds.Box) -> Connection:
        """The connection of the call with its descriptor, or without if that does not come."""

        async def receive(url: str) -> int:
            return await current.receive(url, DESCRIPTOR_WAIT)

        try:
            arrivals = fds.Arrivals(receive, box, passes_fds=current.call.peer.passes_fds)
            return (await arrivals.take(own, ()))[0]
        except NsmError as error:
            _LOG.info("close.without_descriptor", connection=own.id, reason=str(error))
        assert own.mechanism is not None
        return replace(own, mechanism=own.mechanism.without(INODE_URL))

    async def _close_stored(self, connection_id: str, reason: Reason) -> None:
        """Close without a call, in the time the last Request had left (reference §3.4, "postpone")."""
        fds.CURRENT.set(None)
        loop = asyncio.get_running_loop()
        async with self._lanes.turn(connection_id, math.inf):
            if reason == "expired" and self._expiries.is_armed(connection_id):
                return  # refreshed while this waited for its turn
            patience = self._patience.get(connection_id, REQUEST_TIMEOUT)
            stored = self._table.on_close(connection_id)
            if stored is not None:
                await self._end(Closing(stored, None, reason, loop.time() + patience))

    async def _end(self, closing: Closing) -> None:
        """The role's close; the connection is gone for the watchers whatever becomes of it."""
        try:
            await _in_time(self._role.close(closing), closing.deadline)
        finally:
            self._forget(closing.connection.id)

    def _forget(self, connection_id: str) -> None:
        self._expiries.disarm(connection_id)
        self._patience.pop(connection_id, None)
        self._watchers.delete(connection_id)

    def _on_expired(self, connection_id: str) -> None:
        _LOG.info("connection.expired", connection=connection_id)
        self._spawn(self._close_stored(connection_id, "expired")).add_done_callback(_report)

    # -- tasks ---------------------------------------------------------------------------------------

    async def _outlive(self, work: Coroutine[Any, Any, Result], current: _Call) -> Result:
        """Run a call to its end even when its caller goes away, so that nothing stays half done."""
        task = self._spawn(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            current.is_abandoned = True
            task.add_done_callback(_report)
            raise

    def _spawn(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


async def _letting_go(work: Awaitable[Result], call: Call, mechanisms: Iterable[Mechanism | None]) -> Result:
    """``work``; the descriptors that came for it go with it, also those it never asked for."""
    try:
        return await work
    finally:
        for url in {one.get(INODE_URL) for one in mechanisms if one is not None}:
            if url.startswith(fds.INODE):
                with suppress(NsmError):  # no inode: the call has been refused for it
                    call.release_fd(url)


async def _in_time(work: Awaitable[Result], deadline: float) -> Result:
    """The role's work, cancelled at ``deadline`` (loop time): NsmError DEADLINE_EXCEEDED."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError as error:
        raise NsmError(Code.DEADLINE_EXCEEDED, "the hop was not done before the deadline") from error


def _report(task: asyncio.Task[Any]) -> None:
    """How work ended that nobody waits for: logged here, since it can be raised nowhere."""
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, NsmError):
        _LOG.info("call.abandoned", reason=str(error))
    elif error is not None:
        _LOG.error("call.broke", exc_info=error)


def _check_built(built: Connection, own: Connection) -> None:
    """A role that moves off our segment would make every later refresh fail far away from the cause."""
    if built.id != own.id or built.route.index != own.route.index:
        where = f"{own.id!r} at index {own.route.index}, got {built.id!r} at {built.route.index}"
        raise NsmError(
            Code.INTERNAL, f"expected the answer on our own segment {where}", field="connection.id"
        )


def _with_descriptor(connection: Connection, call: Call) -> Connection:
    """The answer as it goes on the wire; a file's descriptor is queued in front of it.

    Over TCP no URL of either kind means anything to the caller, so it goes (trap 25).
    """
    mechanism = connection.mechanism
    url = mechanism.get(INODE_URL) if mechanism else ""
    if mechanism is None or not url.startswith((fds.FILE, fds.INODE)):
        return connection
    if not call.peer.passes_fds or url.startswith(fds.INODE):
        return replace(connection, mechanism=mechanism.without(INODE_URL))
    fd = fds.open_file(url)
    try:
        return replace(connection, mechanism=mechanism.having(**{INODE_URL: call.send_fd(fd)}))
    finally:
        os.close(fd)


def _freshened(stored: Connection, arrived: Connection) -> Connection:
    """The stored connection with the tokens that came with the call: the next hop judges those, not old ones."""
    index = arrived.route.index
    if stored.route.index != index:
        return stored
    segments = (*arrived.route.segments[: index + 1], *stored.route.segments[index + 1 :])
    return replace(stored, path=Path(index, segments, stored.route.unknown))
