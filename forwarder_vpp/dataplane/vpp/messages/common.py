"""Forms of reply that many messages share, and what several modules use."""

from dataclasses import dataclass

from forwarder_vpp.dataplane.vpp.codec import reply
from forwarder_vpp.dataplane.vpp.fields import i32, u32

ANY = 0xFFFFFFFF
"""``~0``: all interfaces, no interface, or "choose one"."""


@reply(0xE8D4E804)
class Done:
    """Only the return value."""

    retval: i32


@reply(0x5383D31F)
class MadeInterface:
    """The interface that was made."""

    retval: i32
    sw_if_index: u32


@reply(0x1992DEAB)
class MadeEntry:
    """The counter of the entry that was made."""

    retval: i32
    stats_index: u32


@dataclass(frozen=True, slots=True)
class NoReply:
    """For messages without an answer."""
