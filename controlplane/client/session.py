"""One connection of a client for as long as it is wanted: Request, refresh, heal, Close (reference §3.4-3.7).

``ClientSession`` runs one task. It asks until the first Request succeeds, then waits for what comes first: the
refresh that is due, the manager's news (down, control plane lost, refresh requested) or a silent data path. What
follows from it is decided by ``nsm.session.heal``.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final, Protocol

import structlog

from controlplane.client.excluded import check, excluding
from controlplane.client.wish import Wish
from nsm.model.connection import Connection, State
from nsm.model.errors import Code, NsmError
from nsm.session.begin import reselect
from nsm.session.heal import Action, Trigger, asks_liveness, decide, is_absence, looks_for_another
from nsm.session.timing import REQUEST_TIMEOUT, RETRY_DELAY, refresh_delay

MAX_BACKOFF: Final = 1.0
"""Longest pause in seconds between tries of a connection that has never been there."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds for one try of a Close: nobody waits longer for a hop that may be dead, its token expires anyway."""

CLOSE_PATIENCE: Final = 8.0
"""Seconds from being told to end until a manager that is away is given up; containers are killed after 10."""

STOP_GRACE: Final = 2.0
"""Seconds a Request that is under way at the end may still take, so that its answer can be closed."""

_AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})


class Manager(Protocol):
    """The next hop of a client, ``controlplane.client.manager``; deadlines are times of the event loop."""

    async def find(self, wish: Wish) -> Connection | None:
        """The connection of that id as the manager has it, ``None`` = it has none."""

    async def request(self, wish: Wish, connection: Connection, *, deadline: float) -> Connection:
        """Request it; the answer has passed the client's policies. NsmError otherwise.

        A first answer that is refused has been closed.
        """

    async def close(self, wish: Wish, connection: Connection, *, deadline: float) -> None:
        """Close it."""

    async def has_another(self, connection: Connection) -> bool:
        """Whether its service has another endpoint for it than its own; False where nobody can tell."""

    def forget(self, connection_id: str) -> None:
        """No more news about it."""


class DataPath(Protocol):
    """Whether packets flow; ``controlplane.client.liveness`` asks by ping."""

    async def alive(self, connection: Connection) -> bool:
        """Now."""

    async def failed(self, current: Callable[[], Connection]) -> None:
        """Return when they do not any more."""


class Phase(Enum):
    """Where a session is."""

    CONNECTING = "connecting"
    UP = "up"
    HEALING = "healing"
    CLOSED = "closed"


class ClientSession:
    """One connection. ``start`` it, ``await connected()``, ``close`` it; ``news`` is told what the manager says."""

    def __init__(
        self,
        wish: Wish,
        manager: Manager,
        *,
        liveness: DataPath | None = None,
        occupied: Callable[[], Iterable[str]] = tuple,
        on_change: Callable[["ClientSession"], None] = lambda _session: None,
        request_timeout: float = REQUEST_TIMEOUT,
        close_patience: float = CLOSE_PATIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``occupied``: the prefixes of the client's other connections; ``on_change`` runs at each new state."""
        self.wish = wish
        self.phase = Phase.CONNECTING
        self.reason = ""
        self._manager = manager
        self._liveness = liveness
        self._occupied = occupied
        self._on_change = on_change
        self._timeout = request_timeout
        self._close_patience = close_patience
        self._clock = clock
        self._connection: Connection | None = None
        self._asked_to_exclude: tuple[str, ...] = ()
        self._looked = False
        self._dropped = False
        self._absences = 0
        self._triggers: deque[Trigger] = deque()
        self._wake = asyncio.Event()
        self._up = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pulse: asyncio.Task[None] | None = None
        self._log = structlog.get_logger().bind(connection=wish.id, service=wish.service)

    @property
    def connection(self) -> Connection | None:
        """The connection as last agreed, on our segment; ``None`` = never agreed yet."""
        return self._connection

    @property
    def was_up(self) -> bool:
        """Whether it has ever been up."""
        return self._up.is_set()

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` has been called."""
        return self._stopping.is_set()

    def start(self) -> asyncio.Task[None]:
        """Begin; returns the task at once, which ends by ``close`` only."""
        self._task = asyncio.create_task(self._run(), name=f"session {self.wish.id}")
        return self._task

    async def connected(self) -> Connection:
        """Wait until it is up the first time."""
        waiting = asyncio.create_task(self._up.wait())
        ended = {self._task} if self._task else set()
        try:
            await asyncio.wait({waiting, *ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._connection is None or not self._up.is_set():
            raise NsmError(Code.CANCELLED, f"the client was stopped before {self.wish.id} was connected")
        return self._connection

    def news(self, connection: Connection, *, lost: bool = False) -> None:
        """What the manager says of this connection; ``lost`` = its monitor stream broke."""
        if lost:
            self._pull(Trigger.CONTROL_PLANE_LOST)
        elif connection.state == State.DOWN:
            self._pull(Trigger.DOWN)
        elif connection.state == State.REFRESH_REQUESTED:
            self._pull(Trigger.REFRESH_REQUESTED)
        elif self._connection is not None and self.phase is Phase.UP:
            self._accept(replace(connection, state=State.UP))

    async def close(self) -> None:
        """Close the connection, also one whose first Request is still under way.

        A manager that is away is waited for ``close_patience`` seconds. What could not be closed then, and when it
        ends by itself, is only logged.
        """
        deadline = _from_now(self._close_patience)
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_GRACE)
            self._task.cancel()
            await asyncio.wait({self._task})
        self._stop_pulse()
        await self._close_before(deadline)
        self._manager.forget(self.wish.id)
        self._connection = None
        self._set(Phase.CLOSED, "")

    async def _close_before(self, deadline: float) -> None:
        """Try until the manager has answered, or ``deadline`` (loop time) is near."""
        said = ""
        while True:
            try:
                await self._close_once(deadline)
            except NsmError as error:
                if error.code not in _AWAY or _from_now(RETRY_DELAY) >= deadline:
                    self._log.warning("close.failed", reason=str(error), **_ends(self._connection))
                    return
                if str(error) != said:
                    said = str(error)
                    left = round(deadline - _from_now(0), 1)
                    self._log.warning("close.waiting", reason=said, seconds_left=left)
                await asyncio.sleep(RETRY_DELAY)
            else:
                return

    async def _close_once(self, deadline: float) -> None:
        """Nothing has been asked for before a manager was there to say what it has of us."""
        known = self._connection
        if known is None and self._looked:
            known = await self._manager.find(self.wish)
        if known is not None:
            until = min(deadline, _from_now(CLOSE_TIMEOUT))
            await self._manager.close(self.wish, known, deadline=until)

    async def _run(self) -> None:
        """The life of the connection, until ``close``."""
        action, failures = Action.REQUEST, 0
        while not self._stopping.is_set():
            try:
                await self._ask(action)
            except NsmError as error:
                failures += 1
                self._failed(error, failures)
                if action is Action.REQUEST and await self._is_to_move(error):
                    action = Action.RESELECT
                    continue
                action = await self._next(action, self._pause(failures))
                continue
            failures = self._absences = 0
            assert self._connection is not None
            action = await self._next(Action.REQUEST, refresh_delay(self._connection.route, self._clock()))

    async def _ask(self, action: Action) -> None:
        """One Request; the connection is up afterwards."""
        if not self._looked:
            await self._adopt()
        if action is Action.RESELECT:
            await self._drop()
        asked = self._connection or self.wish.first()
        if action is Action.RESELECT:
            asked = reselect(asked)
        self._triggers.clear()  # this Request is the answer to all of them
        others = tuple(self._occupied())
        asked = excluding(asked, others, self._asked_to_exclude)
        self._asked_to_exclude = others
        answer = await self._manager.request(self.wish, asked, deadline=_from_now(self._timeout))
        await self._settle(answer, is_first=self._connection is None or action is Action.RESELECT)

    async def _settle(self, answer: Connection, *, is_first: bool) -> None:
        """Take the answer, unless it collides with what our other connections got meanwhile: then close it."""
        try:
            ours = self.wish.ours(answer)
            check(ours, self._occupied())
        except NsmError:
            if is_first:
                with suppress(NsmError):
                    await self._manager.close(self.wish, answer, deadline=_from_now(CLOSE_TIMEOUT))
            raise
        self._accept(replace(ours, state=State.UP))
        self._start_pulse()

    def _accept(self, connection: Connection) -> None:
        """This is the connection now."""
        with suppress(NsmError):
            connection = self.wish.ours(connection)
        changed = self._connection is None or _facts(self._connection) != _facts(connection)
        self._connection = connection
        was, self.phase, self.reason = self.phase, Phase.UP, ""
        self._dropped = False
        self._up.set()
        if changed or was is not Phase.UP:
            self._on_change(self)

    async def _adopt(self) -> None:
        """Take over what a former client of our name left, or close it when something else is wanted now."""
        found = await self._manager.find(self.wish)
        self._looked = True
        if found is None:
            return
        if self.wish.fits(found):
            self._connection = self.wish.adopted(found)
            self._log.info("adopted")
            return
        self._log.info("left_over.closed", found=found.network_service)
        with suppress(NsmError):
            await self._manager.close(self.wish, found, deadline=_from_now(CLOSE_TIMEOUT))

    async def _drop(self) -> None:
        """The Close before a reselect; its failure does not matter (reference §3.4)."""
        self._stop_pulse()
        if self._connection is None or self._dropped:
            return
        self._dropped = True
        try:
            await self._manager.close(self.wish, self._connection, deadline=_from_now(CLOSE_TIMEOUT))
        except NsmError as error:
            self._log.info("reselect.close_failed", reason=str(error))

    async def _next(self, action: Action, delay: float) -> Action:
        """What to do next: ``action`` after ``delay`` seconds, or what a trigger asks for before that.

        While a Request is failing, only the need to reselect is news.
        """
        try:
            async with asyncio.timeout(delay):
                while not self._stopping.is_set():
                    self._wake.clear()
                    while self._triggers and action is not Action.RESELECT:
                        chosen = await self._decide(self._triggers.popleft())
                        if chosen is Action.RESELECT or (chosen is Action.REQUEST and self.phase is Phase.UP):
                            return chosen
                    await self._wake.wait()
        except TimeoutError:
            pass
        return action

    async def _decide(self, trigger: Trigger) -> Action:
        """What a trigger asks for; whether packets still flow is asked where it matters."""
        alive: bool | None = None
        if self._liveness is not None and self._connection is not None and asks_liveness(trigger):
            alive = await self._liveness.alive(self._connection)
        action = decide(trigger, alive)
        if action is not Action.WAIT:
            self._log.info("heal", trigger=trigger.value, is_alive=alive, action=action.value)
        return action

    async def _is_to_move(self, error: NsmError) -> bool:
        """Whether the endpoint is gone and there is another one; without one, what may carry packets is kept."""
        self._absences = self._absences + 1 if is_absence(error) else 0
        known = self._connection
        if known is None or not looks_for_another(error, self._absences):
            return False
        if not await self._manager.has_another(known):
            return False
        return await self._decide(Trigger.ENDPOINT_GONE) is Action.RESELECT

    async def _watch_data_path(self) -> None:
        assert self._liveness is not None

        def current() -> Connection:
            assert self._connection is not None
            return self._connection

        await self._liveness.failed(current)
        self._pull(Trigger.LIVENESS_FAILED)

    def _pull(self, trigger: Trigger) -> None:
        self._triggers.append(trigger)
        self._wake.set()

    def _start_pulse(self) -> None:
        if self._liveness is not None and (self._pulse is None or self._pulse.done()):
            self._pulse = asyncio.create_task(self._watch_data_path(), name=f"liveness {self.wish.id}")

    def _stop_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

    def _failed(self, error: NsmError, failures: int) -> None:
        reason = str(error)
        if reason != self.reason:
            self._log.warning("request.failed", reason=reason, failures=failures)
        if self._up.is_set() and not self._dropped:
            self._start_pulse()  # packets may still flow, and may stop while we try
        self._set(Phase.HEALING if self._up.is_set() else Phase.CONNECTING, reason)

    def _pause(self, failures: int) -> float:
        """Seconds to the next try: 200 ms for a refresh, growing for a connection that never was."""
        if self._up.is_set():
            return RETRY_DELAY
        return min(RETRY_DELAY * 2.0 ** min(failures - 1, 10), MAX_BACKOFF)

    def _set(self, phase: Phase, reason: str) -> None:
        changed = (phase, reason) != (self.phase, self.reason)
        self.phase, self.reason = phase, reason
        if changed:
            self._on_change(self)


def _from_now(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


def _ends(connection: Connection | None) -> dict[str, object]:
    """For the log: when nothing of a connection nobody closed is left, in the path's own words."""
    expiries = [each.expires for each in connection.route.segments if each.expires] if connection else []
    if not expiries:
        return {}
    at = datetime.fromtimestamp(max(expires for expires in expiries) / 1e9, tz=UTC)
    return {"ends_by_itself": at.isoformat(timespec="seconds")}


def _facts(connection: Connection) -> tuple[object, ...]:
    """What the workload notices of a connection: tokens and metrics change without anybody noticing."""
    segments = tuple((segment.name, segment.id) for segment in connection.route.segments)
    return (
        connection.context,
        connection.mechanism,
        connection.payload,
        connection.network_service_endpoint_name,
        segments,
    )
