"""A veth pair: two workloads joined on one node, or a workload and the node (under VPP's af_packet)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.netlink import links, making, wire
from forwarder_vpp.dataplane.netlink.access import NODE, Netlink, inside, nsid_of
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.tags import Tag

KIND: Final = "veth"
NEAR: Final = "near"
FAR: Final = "far"


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end: the namespace (``access.NODE`` = the node's own), the name there, the MAC (``tags.derived_mac``)."""

    netns: NetnsId
    name: str
    mac: str


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair with both ends up; ``owner`` is unique to the pair. ``near`` is in a workload's namespace.

    Without ``large_segments`` whoever makes it sees to it that the workload's end lets single packets out only (set at
    creation, never changed after).
    """

    owner: str
    near: VethEnd
    far: VethEnd
    mtu: int
    large_segments: bool = field(default=True, compare=False)

    @property
    def key(self) -> Key:
        """By owner: names may be changed from inside the namespaces."""
        return Key(KIND, self.owner)

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing."""
        return ()


class VethDescriptor:
    """Descriptor of ``Veth``; the handle is the pair of ``Link`` (near, far)."""

    kind = KIND

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def create(self, item: Veth, handles: Handles) -> tuple[Link, Link]:
        """Make the pair in one message. NsmError: ALREADY_EXISTS when a foreign link has one of the names."""
        _ = handles
        near, far = self._nsid(item.near.netns), self._nsid(item.far.netns)
        tags = self._netlink.tags

        def work(session: Session, fds: Mapping[NetnsId, int]) -> tuple[Link, Link]:
            near_end, far_end = (
                making.End(nsid, fds.get(end.netns), end.name, Tag(item.owner, role, end.netns))
                for nsid, end, role in ((near, item.near, NEAR), (far, item.far, FAR))
            )
            message = pair_message(item, near, far_end.fd, tags.group)
            send = partial(session.change, message, f"a pair {item.near.name} - {item.far.name}")
            first, second = making.make(session, tags, send, (near_end, far_end))
            return first, second

        away = {end.netns for end in (item.near, item.far) if end.netns != NODE}
        return await self._netlink.with_fds(tuple(away), work)

    def updatable(self, old: Veth, new: Veth) -> bool:
        """Only the MTU changes in place."""
        return replace(old, mtu=new.mtu) == new

    async def update(self, old: Veth, new: Veth, handle: object, handles: Handles) -> object:
        """Set the MTU of both ends."""
        _ = old, handles
        for link in _links(handle):
            assert link.tag is not None
            work = partial(_change, links.resize(link.name, new.mtu), f"MTU {new.mtu} of {link.name}")
            await inside(self._netlink, link.tag.netns, work)
        return handle

    async def delete(self, item: Veth, handle: object, handles: Handles) -> None:
        """Remove the pair through whichever end is there; the other goes with it."""
        _ = item, handles
        for link in _links(handle)[:1]:
            await self._netlink.remove(link)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Every pair with our mark; one whose facts are not those of a whole pair has no item."""
        _ = wanted
        pairs: dict[str, dict[str, Link]] = {}
        for link in await self._netlink.links():
            if link.kind == KIND and link.tag is not None and link.tag.role in {NEAR, FAR}:
                pairs.setdefault(link.tag.owner, {})[link.tag.role] = link
        return [_present(owner, ends) for owner, ends in sorted(pairs.items())]

    def _nsid(self, netns: NetnsId) -> int:
        return nsid_of(self._netlink, netns)


def _change(message: wire.Message, doing: str, session: Session) -> None:
    session.change(message, doing)


def pair_message(item: Veth, nsid: int, far_fd: int | None, group: int) -> wire.Message:
    """The message that makes the pair: the near end in the namespace ``nsid``, the far one in that of ``far_fd``."""
    far = _end(item.far, item.mtu, group)
    if far_fd is not None:
        far.append((wire.IFLA_NET_NS_FD, wire.u32(far_fd)))
    data = [(wire.VETH_INFO_PEER, links.end_of_pair(far))]
    near = _end(item.near, item.mtu, group)
    return links.create(nsid, [*near, links.of_kind("veth", data)], up=False)


def _end(end: VethEnd, mtu: int, group: int) -> list[wire.Attribute]:
    return [
        (wire.IFLA_IFNAME, wire.text(end.name)),
        (wire.IFLA_ADDRESS, wire.mac(end.mac)),
        (wire.IFLA_MTU, wire.u32(mtu)),
        (wire.IFLA_GROUP, wire.u32(group)),
    ]


def far_name(handle: object) -> str:
    """What the far end of the pair behind ``handle`` is called; empty if that is not known."""
    ends = handle if isinstance(handle, tuple) else ()
    return next((link.name for link in ends if link.tag is not None and link.tag.role == FAR), "")


def _links(handle: object) -> tuple[Link, ...]:
    assert isinstance(handle, tuple)
    return handle


def _present(owner: str, ends: Mapping[str, Link]) -> Present:
    key = Key(KIND, owner)
    handle = tuple(ends.values())
    if len(ends) < 2 or len({link.mtu for link in handle}) > 1 or not all(link.is_up for link in handle):
        return Present(key, None, handle, owner)
    near, far = (_seen(ends[role]) for role in (NEAR, FAR))
    return Present(key, Veth(owner, near, far, handle[0].mtu), handle, owner)


def _seen(link: Link) -> VethEnd:
    assert link.tag is not None
    return VethEnd(link.tag.netns, link.name, link.mac)
