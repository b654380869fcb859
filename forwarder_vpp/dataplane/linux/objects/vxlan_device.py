"""A VXLAN device inside a workload's namespace, its UDP socket in the node's: made so by one message."""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.netlink import links, making, wire
from forwarder_vpp.dataplane.netlink.access import Netlink, nsid_of
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tag
from nsm.model.errors import Code, NsmError

KIND: Final = "vxlan_device"
ROLE: Final = "tunnel"
_IP4_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class VxlanDevice:
    """Device ``name`` in ``netns``: ``vni`` to and from ``remote``, both on UDP ``port``, from ``local``."""

    owner: str
    netns: NetnsId
    name: str
    mac: str
    mtu: int
    local: str
    remote: str
    vni: int
    port: int

    @property
    def key(self) -> Key:
        """By owner."""
        return Key(KIND, self.owner)

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing."""
        return ()


class VxlanDescriptor:
    """Descriptor of ``VxlanDevice``; the handle is its ``Link``."""

    kind = KIND

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def create(self, item: VxlanDevice, handles: Handles) -> Link:
        """Make the device. NsmError: ALREADY_EXISTS for a foreign name, or a VNI that leads elsewhere."""
        _ = handles
        nsid = nsid_of(self._netlink, item.netns)
        tags = self._netlink.tags

        def work(session: Session, fds: Mapping[NetnsId, int]) -> Link:
            end = making.End(nsid, fds[item.netns], item.name, Tag(item.owner, ROLE, item.netns))
            send = partial(session.change, _device(item, nsid, tags.group), f"VXLAN device {item.name}")
            try:
                (link,) = making.make(session, tags, send, [end])
            except NetlinkError as error:
                raise _explained(item, error) from error
            return link

        return await self._netlink.with_fds([item.netns], work)

    def updatable(self, old: VxlanDevice, new: VxlanDevice) -> bool:
        """Only the MTU changes in place."""
        return replace(old, mtu=new.mtu) == new

    async def update(self, old: VxlanDevice, new: VxlanDevice, handle: object, handles: Handles) -> object:
        """Set the MTU."""
        _ = old, handles
        message = links.resize(new.name, new.mtu)
        await self._netlink.inside(new.netns, lambda session: session.change(message, f"MTU of {new.name}"))
        return handle

    async def delete(self, item: VxlanDevice, handle: object, handles: Handles) -> None:
        """Remove the device."""
        _ = item, handles
        assert isinstance(handle, Link)
        await self._netlink.remove(handle)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Every VXLAN device with our mark."""
        _ = wanted
        return [
            Present(Key(KIND, link.tag.owner), _seen(link), link, link.tag.owner)
            for link in await self._netlink.links()
            if link.kind == "vxlan" and link.tag is not None
        ]


def _device(item: VxlanDevice, nsid: int, group: int) -> wire.Message:
    local, remote = ip_address(item.local).packed, ip_address(item.remote).packed
    is_v4 = len(remote) == _IP4_BYTES
    data = [
        (wire.IFLA_VXLAN_ID, wire.u32(item.vni)),
        (wire.IFLA_VXLAN_LOCAL if is_v4 else wire.IFLA_VXLAN_LOCAL6, local),
        (wire.IFLA_VXLAN_GROUP if is_v4 else wire.IFLA_VXLAN_GROUP6, remote),
        (wire.IFLA_VXLAN_PORT, wire.u16be(item.port)),
        (wire.IFLA_VXLAN_LEARNING, wire.u8(0)),
    ]
    attributes = [
        (wire.IFLA_IFNAME, wire.text(item.name)),
        (wire.IFLA_ADDRESS, wire.mac(item.mac)),
        (wire.IFLA_MTU, wire.u32(item.mtu)),
        (wire.IFLA_GROUP, wire.u32(group)),
        links.of_kind("vxlan", data),
    ]
    return links.create(nsid, attributes, up=False)


def _explained(item: VxlanDevice, error: NetlinkError) -> NsmError:
    """EEXIST with a free name is the VNI; EADDRINUSE is the port."""
    if error.errno == errno.EEXIST:
        text = (
            f"expected a VNI that is free, but {item.vni} on port {item.port} leads to another remote:"
            " the kernel holds one device for a VNI"
        )
        return NsmError(Code.ALREADY_EXISTS, text, field="mechanism.parameters.vni")
    if error.errno == errno.EADDRINUSE:
        text = f"expected UDP port {item.port} of this node to be free for VXLAN"
        return NsmError(Code.RESOURCE_EXHAUSTED, text, field="mechanism.parameters.dst_port")
    return error


def _seen(link: Link) -> VxlanDevice | None:
    assert link.tag is not None
    data = link.data
    remote = data.get(wire.IFLA_VXLAN_GROUP) or data.get(wire.IFLA_VXLAN_GROUP6)
    local = data.get(wire.IFLA_VXLAN_LOCAL) or data.get(wire.IFLA_VXLAN_LOCAL6)
    if remote is None or local is None or not link.is_up:
        return None
    return VxlanDevice(
        owner=link.tag.owner,
        netns=link.tag.netns,
        name=link.name,
        mac=link.mac,
        mtu=link.mtu,
        local=str(ip_address(local)),
        remote=str(ip_address(remote)),
        vni=wire.number(data, wire.IFLA_VXLAN_ID),
        port=int.from_bytes(data.get(wire.IFLA_VXLAN_PORT, b"")),
    )
