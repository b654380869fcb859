"""Ids of network namespaces at the node (RTM_NEWNSID): a number made of the cookie, unless the namespace has one."""

import errno
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.session import NetlinkError, Session
from forwarder_vpp.dataplane.netlink.wire import Message

_FAMILY: Final = b"\0\0\0\0"
_OURS: Final = 0x40000000
_NONE: Final = 0xFFFFFFFF


def number_for(netns: NetnsId) -> int:
    """The id we ask for: cookies are never used again, so neither is this (until 2^30 namespaces later)."""
    return _OURS | (netns.cookie & (_OURS - 1))


def assign(session: Session, fd: int, netns: NetnsId) -> int:
    """The id of the namespace of ``fd``, given now if it had none."""
    wanted = number_for(netns)
    existing = _look_up(session, fd)
    if existing is not None:
        return existing
    attributes = [(wire.NETNSA_NSID, wire.u32(wanted)), (wire.NETNSA_FD, wire.u32(fd))]
    try:
        session.change(Message(wire.RTM_NEWNSID, _FAMILY + wire.pack(attributes)), "to name a namespace")
    except NetlinkError as error:  # given by someone else since the look
        existing = _look_up(session, fd)
        if error.errno != errno.EEXIST or existing is None:
            raise
        return existing
    return wanted


def known(session: Session) -> tuple[int, ...]:
    """Every id there is."""
    answers = session.dump(Message(wire.RTM_GETNSID, _FAMILY), "a list of namespaces")
    return tuple(number_in(body) for body in answers)


def number_in(body: bytes) -> int:
    """The id in the body of an answer or an event."""
    return wire.number(wire.unpack(body[len(_FAMILY) :]), wire.NETNSA_NSID)


def _look_up(session: Session, fd: int) -> int | None:
    message = Message(wire.RTM_GETNSID, _FAMILY + wire.pack([(wire.NETNSA_FD, wire.u32(fd))]))
    (answer,) = session.ask(message, "for the id of a namespace")
    number = number_in(answer)
    return None if number == _NONE else number
