"""When a connection that nobody refreshes ends (reference §3.5).

The end is a time of the event loop, fixed from the token's remaining life when the Request arrives: a jump of the
wall clock afterwards neither closes a living connection nor keeps a dead one.
"""

import asyncio
from collections.abc import Callable


class Expiries:
    """At most one end per key; ``expired(key)`` is called when it comes."""

    def __init__(self, expired: Callable[[str], None]) -> None:
        self._expired = expired
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """How many are armed."""
        return len(self._timers)

    def arm(self, key: str, when: float) -> None:
        """The key ends at ``when`` (loop time), whatever was said before."""
        self.disarm(key)
        self._timers[key] = asyncio.get_running_loop().call_at(when, self._fire, key)

    def disarm(self, key: str) -> None:
        """The key does not end."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def is_armed(self, key: str) -> bool:
        """Whether an end lies ahead: false from the moment it has come."""
        return key in self._timers

    def clear(self) -> None:
        """No key ends."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        self._expired(key)
