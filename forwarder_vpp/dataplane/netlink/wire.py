"""Netlink messages as bytes: headers, attributes, and the numbers of linux/netlink.h, rtnetlink.h, if_link.h."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_ACK_TLVS: Final = 0x200
NLM_F_CAPPED: Final = 0x100

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLMSGERR_ATTR_MSG: Final = 1

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_GETMULTICAST: Final = 58
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTM_NEWNSID, RTM_DELNSID, RTM_GETNSID = 88, 89, 90

RTNLGRP_LINK: Final = 1
RTNLGRP_NSID: Final = 28
RTNLGRP_IPV6_IFADDR: Final = 9

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK = 1, 3, 4, 5
IFLA_TXQLEN, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_STATS64, IFLA_GROUP = 13, 18, 20, 23, 27
IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_LINK_NETNSID, IFLA_TARGET_NETNSID = 28, 29, 37, 46
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER: Final = 1
IFLA_VXLAN_ID, IFLA_VXLAN_GROUP, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 2, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_GROUP6, IFLA_VXLAN_LOCAL6 = 15, 16, 17
RTEXT_FILTER_SKIP_STATS: Final = 1 << 3
IFF_UP: Final = 0x1
IFF_NOARP: Final = 0x80
IFF_LOWER_UP: Final = 0x10000

IFA_ADDRESS, IFA_LOCAL, IFA_MULTICAST, IFA_FLAGS, IFA_TARGET_NETNSID, IFA_PROTO = 1, 2, 7, 8, 10, 11
IFA_F_NODAD, IFA_F_PERMANENT = 0x02, 0x80

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST, RTNH_F_ONLINK = 254, 0, 253, 1, 4

NDA_DST, NDA_LLADDR, NUD_PERMANENT, NTF_PROXY = 1, 2, 0x80, 0x08

FRA_DST, FRA_SRC, FRA_PRIORITY, FRA_TABLE = 1, 2, 6, 15
FRA_PROTOCOL, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE = 21, 22, 23, 24
FR_ACT_TO_TBL: Final = 1

NETNSA_NSID, NETNSA_FD = 1, 3

HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message without its sequence number: ``body`` = fixed header and attributes."""

    type: int
    body: bytes
    flags: int = 0

    def packed(self, sequence: int) -> bytes:
        """As it goes to the kernel, answer asked for."""
        flags = self.flags | NLM_F_REQUEST | NLM_F_ACK
        return HEADER.pack(HEADER.size + len(self.body), self.type, flags, sequence, 0) + self.body


Attribute = tuple[int, bytes]
"""An attribute's type and its packed value."""


def u8(value: int) -> bytes:
    """One byte."""
    return bytes((value,))


def u16be(value: int) -> bytes:
    """A port, in network order."""
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """Four bytes in the machine's order."""
    return _U32.pack(value)


def text(value: str) -> bytes:
    """A string with its closing zero."""
    return value.encode() + b"\0"


def mac(value: str) -> bytes:
    """``aa:bb:cc:dd:ee:ff`` as six bytes."""
    return bytes.fromhex(value.replace(":", ""))


def pack(attributes: Iterable[Attribute]) -> bytes:
    """Attributes one after another, each padded to four bytes."""
    parts = []
    for kind, value in attributes:
        size = _ATTRIBUTE.size + len(value)
        parts.append(_ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4))
    return b"".join(parts)


def nested(kind: int, attributes: Iterable[Attribute]) -> Attribute:
    """An attribute that holds attributes."""
    return kind | _NESTED, pack(attributes)


def unpack(data: bytes) -> dict[int, bytes]:
    """Attributes by type; of a repeated one the last."""
    found, offset = {}, 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + size]
        offset += size + (-size % 4)
    return found


def unpack_list(data: bytes) -> list[bytes]:
    """The values of attributes that form a list, whatever their types."""
    found, offset = [], 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, _ = _ATTRIBUTE.unpack_from(data, offset)
        if size < _ATTRIBUTE.size:
            break
        found.append(data[offset + _ATTRIBUTE.size : offset + size])
        offset += size + (-size % 4)
    return found


def number(attributes: Mapping[int, bytes], kind: int, default: int = 0) -> int:
    """A number of one, two, four or eight bytes in the machine's order."""
    value = attributes.get(kind)
    return default if value is None else int.from_bytes(value, "little" if IS_LITTLE else "big")


def string(attributes: Mapping[int, bytes], kind: int) -> str:
    """A string without its closing zero; empty if absent."""
    return attributes.get(kind, b"").rstrip(b"\0").decode(errors="replace")


IS_LITTLE: Final = _U32.pack(1)[0] == 1
