"""An IPv6 address can be found by its neighbours when the kernel has joined its solicited-node group (RFC 4291 §2.7.1).

The kernel accepts an address at once and joins later, in work of its own that waits for the lock of all links: mostly
within 0.2 ms, at times after 60. A solicitation that comes before is lost, and the next one comes a second later.
"""

import select
import struct
import time
from collections.abc import Iterable
from socket import AF_INET6, socket
from typing import Final

from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.wire import Message

PATIENCE: Final = 1.0
"""Seconds; the kernel joins nothing on an interface that has lost its carrier, however long one waits."""

_IFADDR: Final = struct.Struct("=BBBBI")
_PREFIX: Final = bytes.fromhex("ff0200000000000000000001ff")
_DATAGRAM: Final = 1 << 16


def group_of(address: bytes) -> bytes:
    """The solicited-node group of a packed address."""
    return _PREFIX + address[-3:]


def groups_of(session: Session, index: int) -> set[bytes]:
    """The IPv6 groups that the kernel has joined on an interface."""
    found = set()
    message = Message(wire.RTM_GETMULTICAST, _IFADDR.pack(AF_INET6, 0, 0, 0, index))
    for body in session.dump(message, "a list of groups"):
        if _IFADDR.unpack_from(body)[4] == index:
            found.add(wire.unpack(body[_IFADDR.size :]).get(wire.IFA_MULTICAST, b""))
    return found


def await_joined(session: Session, index: int, addresses: Iterable[bytes]) -> bool:
    """Return when the groups of all ``addresses`` (packed, new on that interface) are joined; whether they are.

    The kernel tells of an address a second time when it has joined its group.
    """
    wanted = {group_of(each) for each in addresses}
    if not wanted or wanted <= groups_of(session, index):
        return True
    deadline = time.monotonic() + PATIENCE
    with Session() as telling:
        news = telling.listen(wire.RTNLGRP_IPV6_IFADDR)
        while not wanted <= groups_of(session, index):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([news], [], [], left)[0]:
                return False
            _read_all(news)
    return True


def _read_all(news: socket) -> None:
    try:
        while news.recv(_DATAGRAM):
            continue
    except BlockingIOError:
        return
    except OSError:  # more news than the kernel kept: look again
        return
