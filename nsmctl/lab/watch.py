"""Wait for the file system to change: woken by inotify, never by a timer."""

import ctypes
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError

IN_MODIFY: Final = 0x2
_IN_CREATE_OR_MOVED: Final = 0x100 | 0x80
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Waker:
    """A poller that empties the inotify queue whenever it wakes, so that the next wait is for news."""

    def __init__(self, notify: int) -> None:
        self._notify = notify
        self._poller = select.poll()

    def register(self, fd: int) -> None:
        """Be woken by ``fd`` becoming readable, too."""
        self._poller.register(fd, select.POLLIN)

    def poll(self, timeout_ms: float) -> bool:
        """Whether something happened within ``timeout_ms``."""
        woken = self._poller.poll(timeout_ms)
        with suppress(BlockingIOError):
            os.read(self._notify, 65536)
        return bool(woken)


@contextmanager
def watching(path: Path, mask: int) -> Iterator[Waker]:
    """A ``Waker`` for inotify events of ``mask`` on ``path``; further descriptors can be registered."""
    notify = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if notify < 0:
        raise _error(str(path))
    try:
        if _LIBC.inotify_add_watch(notify, os.fsencode(path), mask) < 0:
            raise _error(str(path))
        waker = Waker(notify)
        waker.register(notify)
        yield waker
    finally:
        os.close(notify)


def wait_for_path(path: Path, *, timeout: float) -> None:
    """Until ``path`` exists; its folder must be there. LabError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    with watching(path.parent, _IN_CREATE_OR_MOVED) as waker:
        while not path.exists():
            left = deadline - time.monotonic()
            if left <= 0 or not waker.poll(left * 1000):
                raise LabError(f"{path} did not appear within {timeout:.0f} s")


def _error(subject: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), subject)
