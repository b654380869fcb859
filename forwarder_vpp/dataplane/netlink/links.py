"""Links: what a dump says of one, and the messages that make, change and remove them."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tag, Tags
from forwarder_vpp.dataplane.netlink.wire import Attribute, Message

AT_NODE: Final = -1
"""The namespace id that stands for the node itself."""

_IFINFO: Final = struct.Struct("=BxHiII")
_STATS: Final = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class Link:
    """One link as dumped. ``nsid`` = where, ``peer`` = index of a veth's other end, ``data`` = of its kind.

    ``finds_neighbours``: it has a carrier, and whoever is behind it is asked for his address.
    """

    nsid: int
    index: int
    name: str
    kind: str
    mtu: int
    mac: str
    alias: str
    group: int
    is_up: bool
    peer: int
    data: dict[int, bytes]
    tag: Tag | None = None
    finds_neighbours: bool = False

    def is_half_made(self, tags: Tags) -> bool:
        """Whether an agent died between making it and marking it."""
        return self.group == tags.group and not self.alias


@dataclass(frozen=True, slots=True)
class Stats:
    """``rtnl_link_stats64``, the first eight: packets, bytes, errors and drops of each direction."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def dump(session: Session, nsid: int, tags: Tags) -> list[Link]:
    """Every link of a namespace, ours with their tag."""
    attributes = [*_target(nsid), (wire.IFLA_EXT_MASK, wire.u32(wire.RTEXT_FILTER_SKIP_STATS))]
    message = Message(wire.RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0) + wire.pack(attributes))
    return [_link(body, nsid, tags) for body in session.dump(message, "a list of links")]


def find(session: Session, nsid: int, name: str, tags: Tags) -> Link:
    """The link of that name; NetlinkError (ENODEV) if there is none."""
    return _link(_named(session, nsid, name, "to look at"), nsid, tags)


def exists(session: Session, nsid: int, name: str) -> bool:
    """Whether there is a link of that name."""
    try:
        _named(session, nsid, name, "to look for")
    except NetlinkError as error:
        if error.errno not in GONE:
            raise
        return False
    return True


def stats(session: Session, nsid: int, name: str) -> Stats:
    """The counters of the link of that name; NetlinkError (ENODEV) if it is gone."""
    answer = _named(session, nsid, name, "to read the counters of")
    return Stats(*_STATS.unpack_from(wire.unpack(answer[_IFINFO.size :])[wire.IFLA_STATS64]))


def mtu_of_owner(session: Session, address: bytes) -> int | None:
    """The MTU of the link that has ``address`` (packed), in the namespace of the session; ``None`` if none has."""
    for body in session.dump(Message(wire.RTM_GETADDR, bytes(8)), "a list of addresses"):
        attributes = wire.unpack(body[8:])
        if (attributes.get(wire.IFA_LOCAL) or attributes.get(wire.IFA_ADDRESS)) == address:
            index = int.from_bytes(body[4:8], "little" if wire.IS_LITTLE else "big")
            message = Message(wire.RTM_GETLINK, _IFINFO.pack(0, 0, index, 0, 0))
            (answer,) = session.ask(message, "to look at the tunnel's link")
            return wire.number(wire.unpack(answer[_IFINFO.size :]), wire.IFLA_MTU)
    return None


def create(nsid: int, attributes: Iterable[Attribute], *, up: bool) -> Message:
    """A new link in the namespace ``nsid``; taken names are refused."""
    flag = wire.IFF_UP if up else 0
    body = _IFINFO.pack(0, 0, 0, flag, flag) + wire.pack([*_target(nsid), *attributes])
    return Message(wire.RTM_NEWLINK, body, wire.NLM_F_CREATE | wire.NLM_F_EXCL)


def change(name: str, attributes: Iterable[Attribute], *, up: bool | None = None) -> Message:
    """A change to the link of that name, in the session's namespace (no id reaches further: it would move the link)."""
    flags, mask = (wire.IFF_UP if up else 0), (0 if up is None else wire.IFF_UP)
    body = _IFINFO.pack(0, 0, 0, flags, mask) + wire.pack([(wire.IFLA_IFNAME, wire.text(name)), *attributes])
    return Message(wire.RTM_SETLINK, body)


def resize(name: str, mtu: int) -> Message:
    """Another MTU for the link of that name."""
    return change(name, [(wire.IFLA_MTU, wire.u32(mtu))])


def rename(index: int, name: str) -> Message:
    """Another name for the link of that index; taken names are refused."""
    body = _IFINFO.pack(0, 0, index, 0, 0) + wire.pack([(wire.IFLA_IFNAME, wire.text(name))])
    return Message(wire.RTM_SETLINK, body)


def hand_over(index: int, netns: int, name: str, attributes: Iterable[Attribute]) -> Message:
    """The link of that index goes into the namespace of descriptor ``netns`` as ``name``, and is up there.

    A taken name is refused before anything has changed. The kernel waits for one of its grace periods (13 ms and
    more) with the lock of all links held.
    """
    where = [(wire.IFLA_NET_NS_FD, wire.u32(netns)), (wire.IFLA_IFNAME, wire.text(name))]
    body = _IFINFO.pack(0, 0, index, wire.IFF_UP, wire.IFF_UP) + wire.pack([*where, *attributes])
    return Message(wire.RTM_SETLINK, body)


def remove(nsid: int, index: int) -> Message:
    """The end of one link."""
    return Message(wire.RTM_DELLINK, _IFINFO.pack(0, 0, index, 0, 0) + wire.pack(_target(nsid)))


def remove_named(nsid: int, name: str) -> Message:
    """The end of the link of that name."""
    attributes = [(wire.IFLA_IFNAME, wire.text(name)), *_target(nsid)]
    return Message(wire.RTM_DELLINK, _IFINFO.pack(0, 0, 0, 0, 0) + wire.pack(attributes))


def end_of_pair(attributes: Iterable[Attribute]) -> bytes:
    """The other end of a veth pair, as it stands in VETH_INFO_PEER (it cannot be up yet: ENOTCONN)."""
    return _IFINFO.pack(0, 0, 0, 0, 0) + wire.pack(attributes)


def of_kind(kind: str, data: Iterable[Attribute]) -> Attribute:
    """IFLA_LINKINFO."""
    info = [(wire.IFLA_INFO_KIND, wire.text(kind)), wire.nested(wire.IFLA_INFO_DATA, data)]
    return wire.nested(wire.IFLA_LINKINFO, info)


def index_in(body: bytes) -> int:
    """The index in the body of a link event."""
    return int(_IFINFO.unpack_from(body)[2])


def _named(session: Session, nsid: int, name: str, doing: str) -> bytes:
    """What the kernel says of the link of that name; NetlinkError (ENODEV) if there is none."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + wire.pack([*_target(nsid), (wire.IFLA_IFNAME, wire.text(name))])
    (answer,) = session.ask(Message(wire.RTM_GETLINK, body), f"{doing} {name}")
    return answer


def _target(nsid: int) -> list[Attribute]:
    return [] if nsid == AT_NODE else [(wire.IFLA_TARGET_NETNSID, wire.u32(nsid))]


def _link(body: bytes, nsid: int, tags: Tags) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    attributes = wire.unpack(body[_IFINFO.size :])
    info = wire.unpack(attributes.get(wire.IFLA_LINKINFO, b""))
    alias = wire.string(attributes, wire.IFLA_IFALIAS)
    return Link(
        nsid=nsid,
        index=index,
        name=wire.string(attributes, wire.IFLA_IFNAME),
        kind=wire.string(info, wire.IFLA_INFO_KIND),
        mtu=wire.number(attributes, wire.IFLA_MTU),
        mac=attributes.get(wire.IFLA_ADDRESS, b"").hex(":"),
        alias=alias,
        group=wire.number(attributes, wire.IFLA_GROUP),
        is_up=bool(flags & wire.IFF_UP),
        peer=wire.number(attributes, wire.IFLA_LINK),
        data=wire.unpack(info.get(wire.IFLA_INFO_DATA, b"")),
        tag=tags.read(alias),
        finds_neighbours=bool(flags & wire.IFF_LOWER_UP) and not flags & wire.IFF_NOARP,
    )
