"""When an endpoint has had no connection for long enough (reference §3.14)."""

import asyncio
from collections.abc import Callable


class Idle:
    """Calls ``on_idle`` after ``timeout`` seconds without a connection; 0 = never. Runs from ``start`` on."""

    def __init__(self, timeout: float, on_idle: Callable[[], None]) -> None:
        self._timeout = timeout
        self._on_idle = on_idle
        self._busy: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to count, unless there is a connection already."""
        if self._timeout > 0 and not self._busy and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._on_idle)

    def busy(self, connection: str) -> None:
        """This connection is there."""
        self._busy.add(connection)
        self.stop()

    def gone(self, connection: str) -> None:
        """This connection is not there any more."""
        self._busy.discard(connection)
        self.start()

    def stop(self) -> None:
        """Stop counting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
