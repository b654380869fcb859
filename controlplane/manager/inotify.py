"""Notice changes of one file, also when it is replaced or its directory was empty at first.

The directory is watched, not the file: editors and Kubernetes replace files by renaming.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

_CLOSE_WRITE: Final = 0x8
_MOVED: Final = 0xC0
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_ONLYDIR: Final = 0x1000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Calls back on the event loop after anything in a directory changed."""

    def __init__(self, directory: Path, changed: Callable[[], None]) -> None:
        """The directory must exist. Raises OSError when it cannot be watched."""
        self._changed = changed
        self._fd = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise _error(directory)
        mask = _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _ONLYDIR
        if _LIBC.inotify_add_watch(self._fd, os.fsencode(directory), mask) < 0:
            error = _error(directory)
            os.close(self._fd)
            raise error
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        os.read(self._fd, 65536)  # what happened is read from the file, not from the events
        self._changed()


def _error(path: Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(path))
