"""Generic netlink: which number a family has, and messages to it (linux/genetlink.h). Blocking."""

import errno
import struct
from collections.abc import Iterable
from typing import Final

from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.session import NETLINK_GENERIC, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.wire import Attribute, Message

_CONTROL: Final = 0x10
_GET_FAMILY: Final = 3
_CONTROL_VERSION: Final = 2
_ATTR_FAMILY_ID, _ATTR_FAMILY_NAME = 1, 2
_HEADER: Final = struct.Struct("=BBH")


def session() -> Session:
    """A socket into the namespace the calling thread stands in."""
    return Session(NETLINK_GENERIC)


def family(there: Session, name: str) -> int | None:
    """The number of a family; ``None`` if this kernel has it neither built in nor as a module.

    The question loads the module where there is one, and changes nothing else.
    """
    question = message(_CONTROL, _GET_FAMILY, _CONTROL_VERSION, [(_ATTR_FAMILY_NAME, wire.text(name))])
    try:
        (answer,) = there.ask(question, f"to look for {name}")
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return wire.number(attributes(answer), _ATTR_FAMILY_ID)


def message(number: int, command: int, version: int, content: Iterable[Attribute]) -> Message:
    """A command to the family of that number."""
    return Message(number, _HEADER.pack(command, version, 0) + wire.pack(content))


def attributes(body: bytes) -> dict[int, bytes]:
    """The attributes of an answer."""
    return wire.unpack(body[_HEADER.size :])
