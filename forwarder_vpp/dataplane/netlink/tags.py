"""Ownership marks on kernel links: an alias that says whose, in which role and for which namespace; a link group."""

import hashlib
from dataclasses import dataclass
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId

_VERSION: Final = "nsm1"
_PARTS: Final = 7
_GROUP: Final = 0x4E000000


@dataclass(frozen=True, slots=True)
class Tag:
    """What the alias of one of our links says. ``role`` tells the ends of a pair apart."""

    owner: str
    role: str
    netns: NetnsId


class Tags:
    """The marks of one forwarder instance.

    ``group`` is set in the message that makes a link, the alias right after it: a link in the group without
    an alias is one whose making was cut short.
    """

    def __init__(self, instance: str) -> None:
        digest = hashlib.sha256(instance.encode()).hexdigest()
        self._instance = digest[:12]
        self.group = _GROUP | int(digest[:6], 16)

    def alias(self, tag: Tag) -> str:
        """The alias that says ``tag``."""
        place = tag.netns
        return f"{_VERSION} {self._instance} {tag.owner} {tag.role} {place.device:x} {place.inode:x} {place.cookie:x}"

    def read(self, alias: str) -> Tag | None:
        """What an alias says; ``None`` if it is not one of this forwarder."""
        parts = alias.split(" ")
        if len(parts) != _PARTS or parts[:2] != [_VERSION, self._instance]:
            return None
        try:
            device, inode, cookie = (int(part, 16) for part in parts[4:])
        except ValueError:
            return None
        return Tag(parts[2], parts[3], NetnsId(device, inode, cookie))


def derived_mac(owner: str, role: str) -> str:
    """A locally administered unicast MAC address that is the same in every run of the agent."""
    digest = hashlib.sha256(f"{owner} {role}".encode()).digest()
    return bytes(((digest[0] & 0xFC) | 0x02, *digest[1:6])).hex(":")
