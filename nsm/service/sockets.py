"""The endpoint sockets that came as descriptors, kept open so that they can be dialled.

An endpoint that has ended leaves a descriptor behind that nobody can be reached by; whenever another socket comes, such
ones are closed. A connection may know its endpoint by that URL for a while longer, and must not reach a stranger: so
the numbers go round, and one that was closed is not used again before all the others were.
"""

import fcntl
import os
import resource
import socket
from collections import OrderedDict
from contextlib import suppress
from typing import Final

from nsm.transport.channel import Channel, Channels

UNIX: Final = "unix://"
MAX_SOCKETS: Final = 1024
"""Kept at a time; the one longest unused is closed first."""
HIGHEST: Final = 16384
"""Numbers stay below: the kernel's table is as long as the highest number in use."""


def fd_url(fd: int) -> str:
    """A URL this process can dial the socket behind an O_PATH descriptor by."""
    return f"{UNIX}/proc/self/fd/{fd}"


class Sockets:
    """Sockets received as descriptors, by inode URL, least recently used first.

    An inode number cannot be used again while we hold the descriptor. A descriptor's number can, once it is closed: the
    channel to that URL goes first.
    """

    def __init__(self, channels: Channels) -> None:
        self._channels = channels
        self._fds: OrderedDict[str, int] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        """How many are open."""
        return len(self._fds)

    async def url(self, channel: Channel, inode: str, patience: float) -> str:
        """The URL to dial; waits for a descriptor that is still under way for at most ``patience`` seconds."""
        if inode not in self._fds:
            fd = await channel.receive_fd(inode, patience)
            if inode in self._fds:  # another call was faster
                os.close(fd)
            else:
                self._fds[inode] = self._renumbered(fd)
                await self._drop_deserted(but=inode)
        self._fds.move_to_end(inode)
        url = fd_url(self._fds[inode])
        while len(self._fds) > MAX_SOCKETS:
            await self._drop(next(iter(self._fds)))
        return url

    async def close(self) -> None:
        """Close all of them, and the channels to them."""
        for inode in tuple(self._fds):
            await self._drop(inode)

    def _renumbered(self, fd: int) -> int:
        """The descriptor at the next free number of the upper half of those we may have; as it is if none is free."""
        highest = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], HIGHEST)
        lowest = highest // 2
        if not lowest <= self._next < highest:
            self._next = lowest
        for start in (self._next, lowest):
            with suppress(OSError):  # EMFILE if all from there on are taken
                moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, start)
                os.close(fd)
                self._next = moved + 1
                return moved
        return fd

    async def _drop_deserted(self, *, but: str) -> None:
        """Close those that nobody listens at any more; one we are connected to is not asked."""
        for inode, fd in tuple(self._fds.items()):
            is_known = inode == but or self._channels.get(fd_url(fd)).connected is not None
            if not is_known and is_deserted(fd) and self._fds.get(inode) == fd:
                await self._drop(inode)

    async def _drop(self, inode: str) -> None:
        fd = self._fds.pop(inode)
        try:
            await self._channels.drop(fd_url(fd))
        finally:
            os.close(fd)


def is_deserted(fd: int) -> bool:
    """Whether nobody listens at the socket of an O_PATH descriptor; one whose queue is full is not deserted."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(f"/proc/self/fd/{fd}")
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
