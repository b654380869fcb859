"""The one place that changes the dataplane: every connection's wish, carried out and kept true.

A Request plans its own connection and waits for it. Everything that may wait (what a Close or a change leaves
behind, what failed to go, a dataplane that lost all) is the background pass's, which backs off while it fails.
A pass always drives towards what is wanted at the moment it plans, so passes need not know of each other.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Final

import structlog

from forwarder_vpp.dataplane.contract.dataplane import Dataplane
from forwarder_vpp.dataplane.contract.intent import Intent
from forwarder_vpp.dataplane.contract.items import Key
from forwarder_vpp.planner.plan import Plan, make_plan
from nsm.model.errors import Code, NsmError

from .executor import Executor, Failures
from .reservations import Reservations
from .wanted import Wanted

NODE: Final = "node"
"""The permanent owner of what belongs to no connection."""

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
"""Seconds between tries of the background pass while it fails."""

_LOG: Final = structlog.get_logger(__name__)


class Reconciler:
    """Keeps one dataplane as the intents say.

    ``on_removed(id)`` is called when nothing of a removed connection is left. ``quarantine``: seconds that objects
    with our mark, which no intent explains, are left alone (their row may be lost, their packets may flow).
    """

    def __init__(
        self, dataplane: Dataplane, *, quarantine: float, on_removed: Callable[[str], None] = lambda _id: None
    ) -> None:
        self._dataplane = dataplane
        self._quarantine_time = quarantine
        self._on_removed = on_removed
        self._executor = Executor(dataplane.descriptors, dataplane.workload_kinds)
        self._reservations = Reservations()
        self._wanted = Wanted()
        self._committed: dict[str, Intent] = {}
        self._leftover: dict[str, set[Key]] = {}
        self._quarantine: dict[Key, float] = {}
        self._known_fully = False
        self._losses = 0
        self._attempt: asyncio.Future[None] | None = None
        self._lost_reason = NsmError(Code.UNAVAILABLE, "the dataplane is not known yet")
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._aside_tasks: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        dataplane.on_lost(self.lost)

    @property
    def writes(self) -> int:
        """Objects created, updated and deleted so far."""
        return self._executor.writes

    def intent(self, connection_id: str) -> Intent | None:
        """The committed intent of a connection."""
        return self._committed.get(connection_id)

    def intents(self) -> tuple[Intent, ...]:
        """Every committed intent."""
        return tuple(self._committed.values())

    def is_busy_with(self, connection_id: str) -> bool:
        """Whether something of a connection is still to be removed or repaired; ``on_removed`` tells the end."""
        return connection_id in self._leftover

    # -- life ----------------------------------------------------------------------------------------

    async def start(self, intents: Iterable[Intent], ended: Iterable[Intent] = ()) -> None:
        """Adopt what exists of ``intents``, make what is missing, remove what is left of ``ended``.

        What fails is tried again in the background.
        """
        self._wanted.set(NODE, self._dataplane.node_items())
        for intent in intents:
            try:
                self._wanted.set(intent.id, self._dataplane.items(intent))
            except NsmError as error:
                _LOG.error("intent.dropped", connection=intent.id, reason=str(error))
                continue
            self._committed[intent.id] = intent
        for intent in ended:
            self._leftover[intent.id] = {item.key for item in self._dataplane.items(intent)}
        if not await self._full_pass():
            self._wake.set()
        self._task = asyncio.create_task(self._run(), name="reconciler")

    async def stop(self) -> None:
        """No more passes; what exists stays."""
        tasks = [*self._aside_tasks, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def drain(self) -> None:
        """Return when nothing waits for the background pass; while a removal fails, that is never."""
        while self._aside_tasks or not self._idle.is_set():
            if self._aside_tasks:
                await asyncio.wait(tuple(self._aside_tasks))
            await self._idle.wait()

    def lost(self) -> None:
        """Everything that existed is gone or unknown: read it again and make what is missing."""
        self._known_fully = False
        self._lost_reason = NsmError(
            Code.UNAVAILABLE, "the dataplane has lost its state and is being restored"
        )
        self._poke()

    def node_changed(self) -> None:
        """The items of the node are others now."""
        keys = self._wanted.set(NODE, self._dataplane.node_items())
        self._leave(NODE, keys)

    # -- connections ---------------------------------------------------------------------------------

    async def realise(self, intent: Intent, deadline: float) -> bool:
        """Make ``intent`` true; whether anything had to be written. ``deadline`` is a time of the event loop.

        When it raises (NsmError, cancellation), the committed intent is what holds again, and nothing is left of
        this one as soon as ``drain`` returns.
        """
        before = self._committed.get(intent.id)
        if before == intent and intent.id not in self._leftover:
            self._committed[intent.id] = intent
            return False
        scope = self._wanted.set(intent.id, self._dataplane.items(intent))
        writes = asyncio.create_task(self._build(scope), name=f"build {intent.id}")
        try:
            made = await asyncio.shield(writes)
            if made:
                await self._dataplane.settle(intent, max(0.0, deadline - asyncio.get_running_loop().time()))
        except BaseException as error:
            undo = self._undo(intent.id, before, scope, writes)
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.shield(undo)
            raise
        self._committed[intent.id] = intent
        self._leave(intent.id, {key for key in scope if key not in self._wanted})
        return made

    def remove(self, connection_id: str) -> None:
        """The connection is wanted no more; the background pass takes it away and calls ``on_removed``."""
        self._committed.pop(connection_id, None)
        self._leave(connection_id, self._wanted.remove(connection_id), even_if_empty=True)

    async def withdraw(self, connection_id: str, deadline: float) -> None:
        """Return when a removed connection takes up nothing at its workloads; what fails is the background pass's.

        The rest may take long (VPP stands still for each ring), and the next Request may be given the same addresses.
        """
        kinds = self._dataplane.workload_kinds
        scope = [key for key in self._leftover.get(connection_id, ()) if key.kind in kinds]

        async def withdraw() -> None:
            with contextlib.suppress(NsmError):  # the background pass meets it too, and tells
                await self._pass(scope)

        task = self._aside(withdraw(), f"withdraw {connection_id}")
        await asyncio.wait({task}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))

    def _undo(
        self, connection_id: str, before: Intent | None, scope: tuple[Key, ...], writes: asyncio.Task[bool]
    ) -> asyncio.Task[None]:
        """Want again what was committed, at once; carry it out when the writes under way have ended."""
        if before is None:
            self._wanted.remove(connection_id)
        else:
            self._wanted.set(connection_id, self._dataplane.items(before))

        async def undo() -> None:
            await asyncio.wait({writes})
            if not writes.cancelled():
                writes.exception()  # a caller that was cancelled has not taken it
            failures = await self._pass(scope)
            if failures:
                self._leave(connection_id, scope)

        return self._aside(undo(), f"undo {connection_id}")

    def _aside(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """``work`` as a task that its caller's end does not end; ``drain`` and ``stop`` know of it."""
        task = asyncio.create_task(work, name=name)
        self._aside_tasks.add(task)
        task.add_done_callback(self._is_done)
        return task

    def _is_done(self, task: asyncio.Task[None]) -> None:
        self._aside_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.warning("aside.failed", task=task.get_name(), reason=str(error))
            self.lost()

    async def _build(self, scope: tuple[Key, ...]) -> bool:
        """Everything of ``scope`` that is missing or different; whether there was any."""
        plan = await self._plan(scope)
        taken = plan.keys.difference(key for batch in plan.prune for key in batch)
        if plan.pending:
            named = ", ".join(sorted(map(str, plan.pending)))
            raise NsmError(Code.FAILED_PRECONDITION, f"the dataplane lacks what these need: {named}")
        failures = await self._carry_out(plan, taken, strict=True, prune=False)
        if failures:
            raise _cause(failures)
        return bool(taken)

    # -- passes --------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Return when what exists is known. NsmError: the try to find out has failed."""
        while not self._known_fully:
            if self._attempt is None:
                self._attempt = asyncio.get_running_loop().create_future()
                self._poke()
            await asyncio.shield(self._attempt)
            if not self._known_fully:
                raise self._lost_reason

    async def _plan(self, scope: Iterable[Key]) -> Plan:
        """The plan of a moment at which everything is known and none of ``scope`` is in flight."""
        keys = tuple(scope)
        while True:
            await self._ready()
            await self._reservations.free(keys)
            if self._known_fully:
                return make_plan(self._wanted, self._executor.present, keys, self._executor.updatable)

    async def _pass(self, scope: Iterable[Key]) -> Failures:
        """Drive ``scope`` to what is wanted now, as far as it can be."""
        plan = await self._plan(scope)
        failures = await self._carry_out(plan, plan.keys, strict=False, prune=True)
        for key in plan.pending:
            failures.setdefault(key, NsmError(Code.FAILED_PRECONDITION, f"{key} lacks what it requires"))
        return failures

    async def _carry_out(self, plan: Plan, taken: Iterable[Key], *, strict: bool, prune: bool) -> Failures:
        """No await between the planning and this reserving."""
        keys = tuple(taken)
        self._reservations.take(keys)
        release = self._reservations.release
        wanted = {key: self._wanted[key] for batch in plan.create for key in batch}
        try:
            failures = await self._executor.build(plan, wanted, release, strict=strict)
            if prune:
                failures |= await self._executor.prune(plan.prune, release)
        finally:
            for key in keys:
                release(key)
        return failures

    async def _full_pass(self) -> bool:
        """Read everything, then drive everything; whether it succeeded."""
        self._known_fully = False
        losses = self._losses
        await self._reservations.all_free()
        error = await self._executor.dump(self._wanted)
        if error is not None:
            self._lost_reason = NsmError(Code.UNAVAILABLE, f"the dataplane cannot be read: {error}")
        self._known_fully = error is None and losses == self._losses
        self._tell_attempt()
        if not self._known_fully:
            return False
        self._hold_strangers()
        known = dict.fromkeys((*self._wanted, *self._executor.present))
        failures = await self._pass([key for key in known if key not in self._quarantine])
        for key in failures:
            for owner in self._wanted.owners_of(key) or {NODE}:
                self._leftover.setdefault(owner, set()).add(key)
        self._report(failures)
        self._confirm(tuple(self._leftover))
        return not failures

    def _tell_attempt(self) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.set_result(None)

    def _hold_strangers(self) -> None:
        """Objects that no intent explains and that we did not condemn ourselves are left alone for a while."""
        loop = asyncio.get_running_loop()
        condemned = {key for keys in self._leftover.values() for key in keys}
        strangers = self._executor.present.keys() - self._wanted.keys() - condemned
        now = loop.time()
        known = self._quarantine
        self._quarantine = {}
        for key in strangers:
            until = known.get(key)
            if until is None:
                until = now + self._quarantine_time
                loop.call_later(self._quarantine_time + 0.1, self.lost)
                _LOG.warning("stranger.held", key=str(key), seconds=self._quarantine_time)
            if until > now:
                self._quarantine[key] = until

    # -- background ----------------------------------------------------------------------------------

    def _leave(self, owner: str, keys: Iterable[Key], *, even_if_empty: bool = False) -> None:
        """Something of ``owner`` for the background pass."""
        scope = set(keys)
        if scope or even_if_empty:
            self._leftover.setdefault(owner, set()).update(scope)
            self._poke()

    def _poke(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            if not self._leftover and self._known_fully:
                self._idle.set()
            await self._wake.wait()
            self._wake.clear()
            if await self._round():
                pause = FIRST_PAUSE
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.set()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _round(self) -> bool:
        """One background pass; whether nothing is left to do."""
        try:
            if not self._known_fully:
                return await self._full_pass()
            owners = tuple(self._leftover)
            failures = await self._pass({key for owner in owners for key in self._leftover[owner]})
        except NsmError as error:
            _LOG.warning("reconcile.failed", reason=str(error))
            return False
        self._report(failures)
        self._confirm(owners)
        return not failures

    def _report(self, failures: Failures) -> None:
        for key, failure in failures.items():
            _LOG.warning("reconcile.failed", key=str(key), reason=str(failure))

    def _confirm(self, owners: Sequence[str]) -> None:
        """Strike off the owners of whom everything is as it should be."""
        for owner in owners:
            if not all(self._is_true(key) for key in self._leftover[owner]):
                continue  # failed, or condemned while the pass ran
            del self._leftover[owner]
            if owner != NODE and owner not in self._committed and not self._wanted.keys_of(owner):
                self._on_removed(owner)

    def _is_true(self, key: Key) -> bool:
        there, wanted = self._executor.present.get(key), self._wanted.get(key)
        return there is None if wanted is None else there is not None and there.item == wanted


def _cause(failures: Failures) -> NsmError:
    """The failure that was not the consequence of another one."""
    first = next((each for each in failures.values() if each.code is not Code.FAILED_PRECONDITION), None)
    return first or next(iter(failures.values()))
