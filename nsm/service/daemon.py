"""The frame of every daemon: settings, logs, signals, guarded tasks, exit status (design §3).

Exit status: 0 after a clean end, 64 when what was configured cannot work (BSD's EX_USAGE; systemd need not restart
that), 1 for anything unexpected. ``load_settings`` exits with 2 before that for settings that cannot be read.
"""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from nsm.identity.source import SpiffeSource
from nsm.identity.tokens import PathTokens, PathTokenVerifier
from nsm.model.errors import NsmError
from nsm.model.identity import Identity, TokenSource, TokenVerifier
from nsm.policy.rules import Policies
from nsm.service import inventory
from nsm.service.config import ConfigError, NsmSettings
from nsm.service.logs import setup_logs
from nsm.transport import wirelog
from nsm.transport.channel import Channels

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 64

YOUNG: Final = 5000
"""New objects after which the collector looks at them; a Request makes hundreds, and few of them outlive it."""

STOP_TIMEOUT: Final = 30.0
"""Seconds a daemon may take to end after it was told to; then it is cancelled, and fails."""

_LOG: Final = structlog.get_logger()

Settings = TypeVar("Settings", bound=NsmSettings)


class Daemon:
    """What ``main`` is given: ``stopping`` is set when the daemon shall end."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.is_ready = False
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def ready(self, **facts: object) -> None:
        """The daemon serves: one event ``ready`` with ``facts``."""
        if not self.is_ready:
            gc.freeze()  # modules and what start-up made stay: a full collection took 60 ms to look at them
            gc.set_threshold(YOUNG)
        self.is_ready = True
        _LOG.info("ready", pid=os.getpid(), **facts)

    def guard(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a task that must live as long as the daemon: if it ends before, the daemon ends too and fails."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self.stopping.is_set() or task.cancelled():
            return
        error = task.exception()
        _LOG.error("task.ended", task=task.get_name(), exc_info=error)
        self._failure = error or RuntimeError(f"task {task.get_name()} ended")
        self.stopping.set()

    async def finish(self) -> None:
        """Cancel what is still guarded; raises what a guarded task died of."""
        self.stopping.set()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._failure is not None:
            raise _GuardedFailureError from self._failure


class _GuardedFailureError(Exception):
    """A guarded task ended; why has been logged already."""


def run(settings: Settings, main: Callable[[Settings, Daemon], Awaitable[None]]) -> int:
    """Run ``main`` on a new event loop until it returns; the exit status.

    SIGTERM and SIGINT set ``stopping``; before ``ready`` they also cancel ``main``, which has nothing to finish then.
    A second one cancels it in any case. SIGUSR1 and SIGUSR2 change the log level, SIGQUIT makes it tell what it
    has in hand.
    """
    setup_logs(settings.log_level, daemon=settings.name)
    try:
        with _wire_log(settings):
            asyncio.run(_supervise(settings, main))
    except ConfigError as error:
        _LOG.error("configuration", reason=str(error))
        return EXIT_USAGE
    except NsmError as error:
        _LOG.error("failed", reason=str(error))
        return EXIT_FAILED
    except _GuardedFailureError:
        return EXIT_FAILED
    except asyncio.CancelledError:
        _LOG.error("stopped.by_force")
        return EXIT_FAILED
    except Exception:  # noqa: BLE001 - the last resort of a process: said once, told by the exit status
        _LOG.exception("failed")
        return EXIT_FAILED
    _LOG.info("stopped")
    return EXIT_OK


@contextmanager
def _wire_log(settings: NsmSettings) -> Iterator[None]:
    """Every message in the file ``wire_log`` for the time of the block; ConfigError if it cannot be written."""
    if not settings.wire_log:
        yield
        return
    try:
        wirelog.start(Path(settings.wire_log), settings.name)
    except OSError as error:
        raise ConfigError(f"NSM_WIRE_LOG: expected a file that can be written, got {error}") from error
    _LOG.warning("wire_log", file=settings.wire_log)
    try:
        yield
    finally:
        wirelog.stop()


async def _supervise(settings: Settings, main: Callable[[Settings, Daemon], Awaitable[None]]) -> None:
    """``main`` under signals; CancelledError when it had to be cancelled after it was ready."""
    daemon = Daemon()
    task = asyncio.ensure_future(main(settings, daemon))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, daemon, task)
    loop.add_signal_handler(signal.SIGQUIT, inventory.tell)
    watchdog = asyncio.create_task(_end_late(daemon, task))
    try:
        await asyncio.wait({task})
        if task.cancelled() and (daemon.is_ready or not daemon.stopping.is_set()):
            raise asyncio.CancelledError
        if not task.cancelled():
            task.result()
    finally:
        watchdog.cancel()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            loop.remove_signal_handler(number)
        await daemon.finish()


def _stop(daemon: Daemon, main: asyncio.Future[None]) -> None:
    """The first signal asks, the second one insists."""
    if daemon.stopping.is_set():
        main.cancel()
    daemon.stopping.set()


async def _end_late(daemon: Daemon, main: asyncio.Future[None]) -> None:
    """``main`` is cancelled when it was not ready, once, so that it can let go; then when it takes too long to end."""
    await daemon.stopping.wait()
    if not daemon.is_ready:
        main.cancel()
    await asyncio.sleep(STOP_TIMEOUT)
    _LOG.error("stop.took_too_long", seconds=STOP_TIMEOUT)
    main.cancel()


@dataclass(frozen=True, slots=True)
class Node:
    """What a daemon needs to take part in the mesh."""

    identity: Identity
    tokens: TokenSource
    verifier: TokenVerifier
    policies: Policies
    channels: Channels


@asynccontextmanager
async def open_node(settings: NsmSettings) -> AsyncIterator[Node]:
    """Our identity from the Workload API of the settings, waited for, and what is built on it; closed at the end.

    Raises:
        NsmError: INVALID_ARGUMENT for an endpoint of the Workload API that cannot be one.
    """
    _LOG.info("identity.waiting", endpoint=settings.identity_endpoint)
    source = await SpiffeSource.connect(settings.identity_endpoint)
    try:
        tokens = PathTokens(source, max_lifetime=settings.max_token_lifetime, clock=time.time)
        verifier = PathTokenVerifier()
        channels = Channels(source, tokens, dial_timeout=settings.dial_timeout)
        _LOG.info("identity.ready", spiffe_id=tokens.spiffe_id)
        try:
            yield Node(source, tokens, verifier, Policies(verifier), channels)
        finally:
            await channels.close()
    finally:
        await source.close()
