"""The few system calls Python 3.11 does not wrap (man 2 setns, unshare, mount, umount2; ioctl_ns)."""

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId

OWN_NETNS: Final = "/proc/thread-self/ns/net"
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 2
_NS_GET_NSTYPE: Final = 0xB703
_SO_NETNS_COOKIE: Final = 71
_SYS_PIDFD_GETFD: Final = 438  # the same on every architecture
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace of ``fd``."""
    _check(_LIBC.setns(fd, CLONE_NEWNET), "setns")


def unshare_mounts() -> None:
    """Give the calling thread mounts of its own that no one else's changes reach."""
    _check(_LIBC.unshare(CLONE_NEWNS), "unshare")
    _check(_LIBC.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "/")


def bind_mount(source: str, target: str) -> None:
    """Show the folder ``source`` at ``target``."""
    _check(_LIBC.mount(source.encode(), target.encode(), None, ctypes.c_ulong(MS_BIND), None), target)


def unmount(target: str) -> None:
    """Take a mount off, its users notwithstanding."""
    _check(_LIBC.umount2(target.encode(), MNT_DETACH), target)


def fd_of(pidfd: int, number: int) -> int:
    """A copy of descriptor ``number`` of another process; OSError if it has none, or may not be looked into."""
    fd: int = _LIBC.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0)
    _check(min(fd, 0), f"descriptor {number}")
    return fd


def open_netns(path: str) -> int:
    """A descriptor of the network namespace at ``path``; OSError if there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if fcntl.ioctl(fd, _NS_GET_NSTYPE) != CLONE_NEWNET:
            raise OSError(f"{path} is a namespace, but not one of networks")
    except BaseException:
        os.close(fd)
        raise
    return fd


def new_netns() -> int:
    """A descriptor of a new network namespace that nobody is in: it lasts as long as what refers to it."""
    back = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.unshare(CLONE_NEWNET), "unshare")
        try:
            return os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(back)
    finally:
        os.close(back)


@contextmanager
def standing_in(fd: int) -> Iterator[None]:
    """The calling thread inside the namespace of ``fd``, then back; no await may happen inside (12 us)."""
    back = os.open(OWN_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd)
        try:
            yield
        finally:
            setns(back)
    finally:
        os.close(back)


def identity(fd: int) -> NetnsId:
    """Which namespace ``fd`` is."""
    with standing_in(fd), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        cookie = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    status = os.fstat(fd)
    return NetnsId(status.st_dev, status.st_ino, cookie)


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
