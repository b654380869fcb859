"""Wider buffers for the UDP sockets of another process of ours.

wireguard-go takes its sockets as the kernel gives them: 208 KiB, which is under a hundred full packets. When a busy
machine gives the process no turn for a tenth of a second, the rest is lost. Later versions ask for 7 MiB; for every
version we do, on a copy of its descriptor (pidfd_getfd(2), Linux 5.6).
"""

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Final

from forwarder_vpp.dataplane.netlink import syscalls

SIZE: Final = 7 << 20
"""Bytes, as wireguard-go since 2023."""

_FORCE: Final = {socket.SO_RCVBUF: 33, socket.SO_SNDBUF: 32}
"""SO_RCVBUFFORCE and SO_SNDBUFFORCE, beyond the administrator's limit: CAP_NET_ADMIN."""


def widen(process: int) -> int:
    """Widen the buffers of every UDP socket of ``process``; how many sockets. OSError: it is gone, or not ours."""
    count = 0
    pidfd = os.pidfd_open(process)
    try:
        for entry in Path(f"/proc/{process}/fd").iterdir():
            target = ""
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(entry)  # noqa: PTH115 - it names no file
            if target.startswith("socket:"):
                count += _widen_copy(pidfd, int(entry.name))
    finally:
        os.close(pidfd)
    return count


def _widen_copy(pidfd: int, number: int) -> bool:
    try:
        copy = socket.socket(fileno=syscalls.fd_of(pidfd, number))
    except OSError as error:
        if error.errno == errno.EBADF:  # it was closed meanwhile
            return False
        raise
    with copy:
        return _widen(copy)


def _widen(copy: socket.socket) -> bool:
    if copy.type != socket.SOCK_DGRAM or copy.family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    for ordinary, forced in _FORCE.items():
        try:
            copy.setsockopt(socket.SOL_SOCKET, forced, SIZE)
        except PermissionError:
            copy.setsockopt(socket.SOL_SOCKET, ordinary, SIZE)  # up to the administrator's limit
    return True
