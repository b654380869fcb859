"""The few system calls Python 3.11 does not wrap: setns, unshare, mount, umount2 (man 2 of each)."""

import ctypes
import os
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

MS_REC: Final = 0x4000
MS_BIND: Final = 0x1000
MS_PRIVATE: Final = 0x40000
MS_SHARED: Final = 0x100000
MNT_DETACH: Final = 2

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace of ``fd``; OSError as the kernel says."""
    _check(_LIBC.setns(fd, kind), "setns")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces; CLONE_NEWUSER needs a process of one thread."""
    _check(_LIBC.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    result = _LIBC.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, target)


def unmount(target: str) -> None:
    """umount2(2), detached: gone from the tree now, from the kernel when the last user is."""
    _check(_LIBC.umount2(target.encode(), MNT_DETACH), target)


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
