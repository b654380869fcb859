"""Tells when files change: inotify on their directories, so that replacing a file by renaming counts too."""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CLOSE_WRITE: Final = 0x8
_MOVED_FROM: Final = 0x40
_MOVED_TO: Final = 0x80
_CREATE: Final = 0x100
_DELETE: Final = 0x200
_OVERFLOW: Final = 0x4000
_ONLY_DIRECTORIES: Final = 0x01000000
_EVENTS: Final = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_DIRECTORIES
_HEADER: Final = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_SWAPPED: Final = "..data"
"""The link that Kubernetes exchanges when a mounted ConfigMap or Secret changes."""


class Watcher:
    """Calls ``changed`` on the event loop after any of the files was written, replaced, made or removed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """OSError if the kernel gives out no inotify instance (``fs.inotify.max_user_instances``)."""
        self._changed = changed
        self._names: dict[int, set[str]] = {}
        self._watches: dict[Path, int] = {}
        self._descriptor = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def watch(self, files: Iterable[Path]) -> None:
        """Watch these files from now on, instead of the former ones; a missing directory is left out."""
        wanted: dict[Path, set[str]] = {}
        for file in files:
            wanted.setdefault(file.parent, {_SWAPPED}).add(file.name)
        for directory in set(self._watches) - set(wanted):
            _LIBC.inotify_rm_watch(self._descriptor, self._watches.pop(directory))
        self._names.clear()
        for directory, names in wanted.items():
            with contextlib.suppress(OSError):
                path = os.fsencode(directory)
                watch = _checked(_LIBC.inotify_add_watch(self._descriptor, path, _EVENTS))
                self._watches[directory] = watch
                self._names.setdefault(watch, set()).update(names)

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        offset, is_ours = 0, False
        while offset < len(data):
            watch, mask, _, size = _HEADER.unpack_from(data, offset)
            begin = offset + _HEADER.size
            name = os.fsdecode(data[begin : begin + size].rstrip(b"\0"))
            is_ours = is_ours or name in self._names.get(watch, ()) or bool(mask & _OVERFLOW)
            offset = begin + size
        if is_ours:
            self._changed()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
