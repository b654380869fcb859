"""A veth pair that waits at the node for a workload, and is handed over by one message into its namespace.

The near end is down and has no peer to talk to yet, so nothing arrives at the far one. Handing over gives the near
end namespace, name, MAC, MTU and owner at once and takes it up; the far end keeps its name, for VPP knows it by that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.netlink import links, making, wire
from forwarder_vpp.dataplane.netlink.access import NODE, Netlink, nsid_of
from forwarder_vpp.dataplane.netlink.links import AT_NODE, Link
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.tags import Tag, Tags, derived_mac
from forwarder_vpp.dataplane.netlink.veth import FAR, NEAR, Veth, VethEnd, pair_message

READY_NEAR: Final = "ready-near"
READY_FAR: Final = "ready-far"
"""Roles of their own, so that nobody takes a waiting pair for one of a connection."""

FAR_NAMES: Final = "nvp"
"""What the far end's name begins with, also after the pair was handed over."""

_NEAR_NAMES: Final = "nwp"
_ENDS: Final = ((_NEAR_NAMES, READY_NEAR), (FAR_NAMES, READY_FAR))
_MTU: Final = 1500


@dataclass(frozen=True, slots=True)
class Pair:
    """A waiting pair: ``owner`` is in the alias of both ends."""

    owner: str
    near: Link
    far: Link


async def make(netlink: Netlink, owner: str, name: str) -> Pair:
    """A pair of ``owner`` at the node; ``name`` (8 characters) tells it from others."""
    ends = [VethEnd(NODE, f"{start}{name}", derived_mac(owner, role)) for start, role in _ENDS]

    def work(session: Session) -> Pair:
        tags = netlink.tags
        veth = Veth(owner, ends[0], ends[1], _MTU)
        marked = [
            making.End(AT_NODE, None, end.name, Tag(owner, role, NODE), up=role == READY_FAR)
            for end, (_, role) in zip(ends, _ENDS, strict=True)
        ]
        message = pair_message(veth, AT_NODE, None, tags.group)
        near, far = making.make(session, tags, lambda: session.change(message, "a ready pair"), marked)
        return Pair(owner, near, far)

    return await netlink.at_node(work)


def found(all_links: Sequence[Link]) -> tuple[list[Pair], list[Link]]:
    """The waiting pairs among our links, and the ends of pairs that are not whole."""
    ends: dict[str, dict[str, Link]] = {}
    for link in all_links:
        if link.tag is not None and link.tag.role in {READY_NEAR, READY_FAR}:
            ends.setdefault(link.tag.owner, {})[link.tag.role] = link
    pairs: list[Pair] = []
    rest: list[Link] = []
    for owner, each in sorted(ends.items()):
        near, far = each.get(READY_NEAR), each.get(READY_FAR)
        if near is not None and far is not None and far.is_up and near.nsid == far.nsid:
            pairs.append(Pair(owner, near, far))
        else:
            rest += each.values()
    return pairs, rest


async def hand_over(netlink: Netlink, pair: Pair, item: Veth) -> tuple[Link, Link]:
    """Make ``pair`` what ``item`` says, but for the name of its far end; the ends as they are then.

    NetlinkError with EEXIST: the workload has a link of that name, and the pair is as before. After any other
    failure the pair is of no use any more.
    """
    netns = item.near.netns
    nsid = nsid_of(netlink, netns)

    def work(session: Session, fds: Mapping[NetnsId, int]) -> tuple[Link, Link]:
        tags = netlink.tags
        session.change(
            links.hand_over(pair.near.index, fds[netns], item.near.name, _facts(item.near, NEAR, item, tags)),
            f"to hand {item.near.name} over",
        )
        there = _facts(VethEnd(NODE, pair.far.name, item.far.mac), FAR, item, tags)
        session.change(links.change(pair.far.name, there), f"to mark {pair.far.name}")
        near = links.find(session, nsid, item.near.name, tags)
        return near, links.find(session, AT_NODE, pair.far.name, tags)

    return await netlink.with_fds((netns,), work)


def _facts(end: VethEnd, role: str, item: Veth, tags: Tags) -> list[wire.Attribute]:
    alias = tags.alias(Tag(item.owner, role, end.netns))
    return [
        (wire.IFLA_ADDRESS, wire.mac(end.mac)),
        (wire.IFLA_MTU, wire.u32(item.mtu)),
        (wire.IFLA_IFALIAS, wire.text(alias)),
    ]
