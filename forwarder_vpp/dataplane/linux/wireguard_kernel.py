"""WireGuard tunnels by the kernel's own devices: implements ``Engine``.

One message makes the device inside the workload's namespace while its UDP socket stays in the namespace the message
came from, the node's. It is configured before it goes up, so its first packet is already the handshake.
"""

import asyncio
import errno
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.linux import wireguard_wire
from forwarder_vpp.dataplane.linux.objects.wireguard_device import (
    KEEPALIVE,
    ROLE,
    Tunnel,
    WireguardDevice,
    passing_name,
    port_taken,
)
from forwarder_vpp.dataplane.linux.wireguard_wire import Device, Peer
from forwarder_vpp.dataplane.netlink import genl, links, making, wire
from forwarder_vpp.dataplane.netlink.access import Netlink, nsid_of
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tag
from nsm.model.errors import Code, NsmError

NOT_HERE: Final = "this kernel has no WireGuard (no module wireguard)"


class KernelWireguard:
    """A device for each tunnel. The kernel's family for them tells no news, so handshakes are asked for."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._is_here = False
        self._held: set[str] = set()

    async def start(self) -> None:
        """Look whether this kernel has WireGuard; loads the module if there is one."""
        self._is_here = await self._netlink.at_node(lambda _: is_in_kernel())

    def refusal(self) -> str:
        """Whether the kernel lacks it."""
        return "" if self._is_here else NOT_HERE

    def holds(self, item: WireguardDevice) -> bool:
        """Whether it was made or found here."""
        return passing_name(item.owner) in self._held

    def device_mtu(self, mtu: int) -> int:
        """The same: the kernel pads a packet no further than the MTU."""
        return mtu

    async def create(self, item: WireguardDevice) -> Tunnel:
        """Make the device, configured and up."""
        nsid = nsid_of(self._netlink, item.netns)
        link = await self._netlink.with_fds([item.netns], partial(self._create, item, nsid))
        name = passing_name(item.owner)
        self._held.add(name)
        return Tunnel(name, link, item)

    async def configure(self, old: WireguardDevice, new: WireguardDevice) -> None:
        """Tell the kernel."""
        is_new = old.remote_public_key != new.remote_public_key

        def work(session: Session) -> None:
            with genl.session() as there:
                message = wireguard_wire.set_peer(_need(there), new.name, _peer(new), is_new=is_new)
                there.change(message, f"the peer of {new.name}")
                session.writes += there.writes

        await self._netlink.inside(new.netns, work)

    async def resize(self, item: WireguardDevice) -> None:
        """Another MTU."""
        message = links.resize(item.name, item.mtu)
        await self._netlink.inside(item.netns, lambda session: session.change(message, f"MTU of {item.name}"))

    async def remove(self, tunnel: Tunnel) -> None:
        """Delete the device; its socket goes with it."""
        self._held.discard(tunnel.name)
        if tunnel.link is not None:
            await self._netlink.remove(tunnel.link)

    async def has_handshake(self, item: WireguardDevice) -> bool:
        """Ask the kernel."""
        try:
            device = await self._netlink.inside(item.netns, lambda _: _device_of(item.name))
        except NetlinkError as error:
            if error.errno not in GONE:
                raise
            text = f"the WireGuard device {item.name} is gone"
            raise NsmError(Code.UNAVAILABLE, text, field="mechanism") from error
        return any(peer.last_handshake for peer in device.peers)

    async def dump(self) -> Sequence[Tunnel]:
        """Every WireGuard device with our mark."""
        found = [
            link
            for link in await self._netlink.links()
            if link.kind == wireguard_wire.FAMILY and link.tag is not None
        ]
        tunnels = await asyncio.gather(*(self._tunnel(link) for link in found))
        self._held = {tunnel.name for tunnel in tunnels}
        return tunnels

    async def _tunnel(self, link: Link) -> Tunnel:
        assert link.tag is not None
        item = None
        if link.is_up:
            with suppress(NsmError):  # the device or its namespace went meanwhile: of no use
                device = await self._netlink.inside(link.tag.netns, lambda _: _device_of(link.name))
                item = _seen(link, device)
        return Tunnel(passing_name(link.tag.owner), link, item)

    def _create(self, item: WireguardDevice, nsid: int, session: Session, fds: Mapping[NetnsId, int]) -> Link:
        tags = self._netlink.tags
        attributes = [
            (wire.IFLA_IFNAME, wire.text(item.name)),
            (wire.IFLA_MTU, wire.u32(item.mtu)),
            (wire.IFLA_GROUP, wire.u32(tags.group)),
            links.of_kind(wireguard_wire.FAMILY, []),
        ]
        message = links.create(nsid, attributes, up=False)
        tag = Tag(item.owner, ROLE, item.netns)
        end = making.End(nsid, fds[item.netns], item.name, tag, partial(_configure, item))
        send = partial(session.change, message, f"WireGuard device {item.name}")
        try:
            (link,) = making.make(session, tags, send, [end])
        except NetlinkError as error:
            if error.errno == errno.EADDRINUSE:  # said when the device goes up
                raise port_taken(item.local_port) from error
            raise
        except ValueError as error:
            raise NsmError(
                Code.INVALID_ARGUMENT, f"WireGuard: {error}", field="mechanism.parameters"
            ) from error
        return link


def is_in_kernel() -> bool:
    """Whether this kernel has WireGuard, built in or as a module. Blocking."""
    with genl.session() as there:
        return genl.family(there, wireguard_wire.FAMILY) is not None


def _need(there: Session) -> int:
    number = genl.family(there, wireguard_wire.FAMILY)
    if number is None:
        raise NsmError(
            Code.FAILED_PRECONDITION, "this kernel has WireGuard no longer", field="mechanism.type"
        )
    return number


def _configure(item: WireguardDevice, session: Session) -> None:
    device = Device(item.private_key, item.local_port, (_peer(item),))
    with genl.session() as there:
        there.change(wireguard_wire.set_device(_need(there), item.name, device), f"to configure {item.name}")
        session.writes += there.writes


def _device_of(name: str) -> Device:
    with genl.session() as there:
        return wireguard_wire.parse(there.dump(wireguard_wire.get(_need(there), name), f"to look at {name}"))


def _peer(item: WireguardDevice) -> Peer:
    return Peer(item.remote_public_key, item.remote, item.remote_port, KEEPALIVE)


def _seen(link: Link, device: Device) -> WireguardDevice | None:
    assert link.tag is not None
    if len(device.peers) != 1:
        return None
    (peer,) = device.peers
    return WireguardDevice(
        owner=link.tag.owner,
        netns=link.tag.netns,
        name=link.name,
        mtu=link.mtu,
        local_port=device.port,
        private_key=device.private_key,
        remote=peer.remote,
        remote_port=peer.remote_port,
        remote_public_key=peer.public_key,
    )
