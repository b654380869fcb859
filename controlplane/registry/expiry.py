"""A timer an endpoint: at the end of its registration it is removed (reference §3.13)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

_LOG: Final = structlog.get_logger()


class ExpiryTimers:
    """By name; setting one replaces the one before."""

    def __init__(self, expired: Callable[[str], Awaitable[None]], clock: Callable[[], float]) -> None:
        """``expired`` is called with the name, once; ``clock`` gives Unix seconds."""
        self._expired = expired
        self._clock = clock
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._timers)

    def set(self, name: str, at: float) -> None:
        """Remove ``name`` at Unix second ``at``."""
        self.cancel(name)
        delay = max(0.0, at - self._clock())
        self._timers[name] = asyncio.get_running_loop().call_later(delay, self._fire, name)

    def cancel(self, name: str) -> None:
        """Forget the timer of ``name``, if there is one."""
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def is_set(self, name: str) -> bool:
        """Whether ``name`` has a timer."""
        return name in self._timers

    def stop(self) -> None:
        """Forget all."""
        for name in tuple(self._timers):
            self.cancel(name)
        for task in self._tasks:
            task.cancel()

    def _fire(self, name: str) -> None:
        del self._timers[name]
        task = asyncio.get_running_loop().create_task(self._run(name), name=f"expiry of {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _run(self, name: str) -> None:
        await self._expired(name)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("expiry.failed", task=task.get_name(), exc_info=error)
