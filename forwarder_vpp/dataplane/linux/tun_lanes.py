"""TUN devices for wireguard-go, made where none of these processes hears of it.

Each wireguard-go listens to all links of the node, and a device that is made there, stands there and goes is five
events to each: with two hundred tunnels the machine is busy with waking them. So a device is made in a namespace of
the agent's own and goes from there to the workload. Its name of that time must be known at the node (the process
looks up an index by it, and sets an MTU), so each *lane*, the way of one device at a time, has a stand-in there: a
second TUN device of the same name, down, that stays as long as the agent. Descriptors are all that keeps these
things: nothing is left of an agent that was killed. (The namespace lives on with the last device made in it.)
"""

import contextlib
import fcntl
import hashlib
import os
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forwarder_vpp.dataplane.netlink import syscalls
from nsm.model.errors import Code, NsmError

TUN: Final = Path("/dev/net/tun")
MTU: Final = 1420
"""What wireguard-go sets at its start: a stand-in that has it already does not change, and that is no event."""

_TUNSETIFF: Final = 0x400454CA
_SIOCSIFMTU: Final = 0x8922
_DATAGRAM: Final = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_FLAGS: Final = struct.Struct("=16sH22x")
_NUMBER: Final = struct.Struct("=16si20x")
_NAMES: Final = 4
"""Names a lane tries: another agent of the same instance that has not gone yet has its own."""


@dataclass(frozen=True, slots=True)
class Lane:
    """``name``: of the stand-in at the node, and of the device until it has its own; ``netns``: where it is made."""

    name: str
    stand_in: int
    netns: int

    def tun(self, *, plain: bool) -> int:
        """Make a device, down; it goes with the last copy of the descriptor. ``plain``: no information header."""
        with syscalls.standing_in(self.netns):
            return tun_here(self.name, plain=plain)


class Lanes:
    """The lanes of one agent, ``count`` devices at a time. Every method blocks, and is called at the node."""

    def __init__(self, instance: str, count: int) -> None:
        self._instance = instance
        self._count = count
        self._lock = threading.Lock()
        self._all: list[Lane] = []
        self._netns = -1
        self._free: queue.SimpleQueue[Lane] = queue.SimpleQueue()

    def open(self) -> None:
        """Make them, unless they are there. NsmError FAILED_PRECONDITION if the kernel refuses."""
        with self._lock:
            if self._netns < 0:
                self._netns = _new_netns()
            while len(self._all) < self._count:
                lane = self._lane(len(self._all))
                self._all.append(lane)
                self._free.put(lane)

    def close(self) -> None:
        """Remove them; devices that are on their way must have arrived."""
        for lane in self._all:
            os.close(lane.stand_in)
        self._all.clear()
        if self._netns >= 0:
            os.close(self._netns)
            self._netns = -1

    @contextlib.contextmanager
    def taken(self) -> Iterator[Lane]:
        """A lane to oneself; waits for one. At the end no device may have its name any more."""
        self.open()
        lane = self._free.get()
        try:
            yield lane
        finally:
            self._free.put(lane)

    def _lane(self, number: int) -> Lane:
        refused: NsmError | None = None
        for attempt in range(_NAMES):
            name = lane_name(self._instance, number, attempt)
            try:
                return Lane(name, _stand_in(name), self._netns)
            except NsmError as error:
                refused = error
        assert refused is not None
        raise refused


def lane_name(instance: str, number: int, attempt: int = 0) -> str:
    """A name nobody else has: any namespace has room for it."""
    return "nsm" + hashlib.sha256(f"{instance} lane {number} {attempt}".encode()).hexdigest()[:11]


def tun_here(name: str, *, plain: bool) -> int:
    """As ``Lane.tun``, in the calling thread's namespace. No link may have that name."""
    return _tun(name, _IFF_TUN | (_IFF_NO_PI | _IFF_VNET_HDR if plain else 0))


def _new_netns() -> int:
    with _refusals("a network namespace"):
        return syscalls.new_netns()


def _stand_in(name: str) -> int:
    fd = _tun(name, _IFF_TUN)
    try:
        with _refusals("a TUN device its MTU"), socket.socket(socket.AF_INET, _DATAGRAM) as here:
            fcntl.ioctl(here, _SIOCSIFMTU, _NUMBER.pack(name.encode(), MTU))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _tun(name: str, flags: int) -> int:
    with _refusals("a TUN device"):
        fd = os.open(TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, _FLAGS.pack(name.encode(), flags))
        except BaseException:
            os.close(fd)
            raise
    return fd


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"the kernel refused {what}: {error.strerror}"
        raise NsmError(Code.FAILED_PRECONDITION, text) from error
