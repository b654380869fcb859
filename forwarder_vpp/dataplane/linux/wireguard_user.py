"""WireGuard tunnels by wireguard-go processes: implements ``Engine``."""

import asyncio
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import structlog

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.linux import uapi
from forwarder_vpp.dataplane.linux.objects.wireguard_device import (
    KEEPALIVE,
    ROLE,
    Tunnel,
    WireguardDevice,
    passing_name,
    port_taken,
)
from forwarder_vpp.dataplane.linux.tun_lanes import Lane, tun_here
from forwarder_vpp.dataplane.linux.wireguard_go import WireguardGo, require_free_port
from forwarder_vpp.dataplane.netlink import links, making, wire
from forwarder_vpp.dataplane.netlink.access import Netlink, nsid_of
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tag
from nsm.model.errors import Code, NsmError

_LOG: Final = structlog.get_logger(__name__)
_TAKEN_FOR_MTU: Final = 1420
_PADDING: Final = 16
_QUEUE: Final = 1000
"""Packets that wait at the TUN device while a busy machine does not run the process: as at most other devices.

A TUN device has 500 unless said, a quarter of a second of 2,000 packets/s. The process's UDP sockets have 7 MiB.
"""


class UserspaceWireguard:
    """A TUN device and a process for each tunnel; the process announces nothing, so its state is read."""

    def __init__(self, netlink: Netlink, daemons: WireguardGo) -> None:
        self._netlink = netlink
        self._daemons = daemons

    async def start(self) -> None:
        """Have the lanes ready: made with the first tunnel they would look like something that it left behind."""
        if self.refusal():
            return
        try:
            await self._netlink.at_node(lambda _: self._daemons.lanes.open())
        except NsmError as error:  # said again to who asks for a tunnel; all else can be had
            _LOG.warning("wireguard.lanes_refused", reason=error.message)

    def refusal(self) -> str:
        """What is missing: the program, or TUN devices this user may make."""
        return self._daemons.refusal()

    def holds(self, item: WireguardDevice) -> bool:
        """Whether its process has a socket."""
        return self._daemons.socket_of(passing_name(item.owner)).exists()

    def device_mtu(self, mtu: int) -> int:
        """Up to 15 bytes less. The process cannot see the device where it is, and takes its MTU for 1420.

        It pads the last part of a packet, behind each whole 1420 bytes, to 16 bytes: a packet of this length is
        padded by nothing, and no shorter one to more. (At 1440 every full packet was 12 bytes too long for the
        underlay: two fragments, and nothing at all arrived where the process sends segments in one.)
        """
        return mtu - (mtu % _TAKEN_FOR_MTU) % _PADDING

    async def create(self, item: WireguardDevice) -> Tunnel:
        """Start the process and give it the device."""
        nsid = nsid_of(self._netlink, item.netns)
        return await self._netlink.with_fds([item.netns], partial(self._create, item, nsid))

    async def configure(self, old: WireguardDevice, new: WireguardDevice) -> None:
        """Tell the process."""
        path = self._daemons.socket_of(passing_name(new.owner))
        is_new = old.remote_public_key != new.remote_public_key
        await self._netlink.at_node(lambda _: uapi.set_values(path, _peer(new, is_new=is_new)))

    async def resize(self, item: WireguardDevice) -> None:
        """Another MTU; the process notices."""
        message = links.resize(item.name, self.device_mtu(item.mtu))
        await self._netlink.inside(item.netns, lambda session: session.change(message, f"MTU of {item.name}"))

    async def remove(self, tunnel: Tunnel) -> None:
        """End the process; the device goes with it."""
        await self._netlink.at_node(lambda _: self._daemons.end(tunnel.name))

    async def has_handshake(self, item: WireguardDevice) -> bool:
        """Ask the process."""
        path = self._daemons.socket_of(passing_name(item.owner))
        return await asyncio.get_running_loop().run_in_executor(self._daemons.asking, _has_handshake, path)

    async def dump(self) -> Sequence[Tunnel]:
        """Every process that has a socket, every TUN device with our mark."""
        found = {
            passing_name(link.tag.owner): link
            for link in await self._netlink.links()
            if link.kind == "tun" and link.tag is not None
        }
        names = sorted({*found, *self._daemons.names()})
        return await self._netlink.at_node(lambda _: [self._tunnel(name, found.get(name)) for name in names])

    def _create(
        self, item: WireguardDevice, nsid: int, session: Session, fds: Mapping[NetnsId, int]
    ) -> Tunnel:
        name = passing_name(item.owner)
        self._daemons.end(name)  # of an attempt that was cut short
        require_free_port(item.local_port)
        end = making.End(nsid, fds[item.netns], item.name, Tag(item.owner, ROLE, item.netns))
        with self._started(name, item, session, end) as dressed:
            try:
                link = dressed()
                uapi.set_values(self._daemons.socket_of(name), _device(item))
                self._daemons.widen(name)
            except BaseException as error:
                self._daemons.end(name)
                if isinstance(error, uapi.UapiError) and error.errno == errno.EADDRINUSE:
                    raise port_taken(item.local_port) from error
                if isinstance(error, ValueError):
                    raise NsmError(
                        Code.INVALID_ARGUMENT, f"WireGuard: {error}", field="mechanism.parameters"
                    ) from error
                raise
        return Tunnel(name, link, item)

    @contextmanager
    def _started(
        self, name: str, item: WireguardDevice, session: Session, end: making.End
    ) -> Iterator[Callable[[], Link]]:
        """The process has its device, where that belongs; what is given names and marks it."""
        if end.nsid == links.AT_NODE:
            make = partial(self._made_here, session, end)
            self._daemons.start(name, make, partial(self._change, item, session, end.name, []))
            yield partial(self._mark, item, session, end)
            return
        assert end.fd is not None
        there = [(wire.IFLA_NET_NS_FD, wire.u32(end.fd))]
        with self._daemons.lanes.taken() as lane:
            tags = self._netlink.tags
            move = partial(self._change, item, session, lane.name, there, lane.netns)
            place = partial(making.place, session, tags, move, [replace(end, name=lane.name)])
            self._daemons.start(name, lane.tun, place)
            yield partial(self._name, session, end, lane)

    def _made_here(self, session: Session, end: making.End, *, plain: bool) -> int:
        """A device with its own name, in the node's namespace."""
        tuns: list[int] = []

        def make() -> None:
            if links.exists(session, end.nsid, end.name):
                raise NetlinkError(errno.EEXIST, f"a TUN device {end.name}")
            tuns.append(tun_here(end.name, plain=plain))

        making.place(session, self._netlink.tags, make, [end])
        return tuns[0]

    def _change(
        self,
        item: WireguardDevice,
        session: Session,
        name: str,
        more: Sequence[wire.Attribute],
        netns: int | None = None,
    ) -> None:
        """Give the device of that name in ``netns`` what it needs, and ``more``; then it is up."""
        attributes = [
            *more,
            (wire.IFLA_MTU, wire.u32(self.device_mtu(item.mtu))),
            (wire.IFLA_GROUP, wire.u32(self._netlink.tags.group)),
            (wire.IFLA_TXQLEN, wire.u32(_QUEUE)),
        ]
        with making.session_in(session, netns) as there:
            there.change(links.change(name, attributes, up=True), f"to place {name}")

    def _mark(self, item: WireguardDevice, session: Session, end: making.End) -> Link:
        """A device of the node gets our mark, and its MTU again: the process has set the one that it begins with."""
        (link,) = making.make(
            session, self._netlink.tags, partial(self._change, item, session, end.name, []), [end]
        )
        return link

    def _name(self, session: Session, end: making.End, lane: Lane) -> Link:
        """The device gets its own name and our mark."""
        tags = self._netlink.tags
        index = links.find(session, end.nsid, lane.name, tags).index
        (link,) = making.make(session, tags, partial(_rename, session, end, index), [end])
        return link

    def _tunnel(self, name: str, link: Link | None) -> Tunnel:
        item = None
        if link is not None and link.is_up:
            try:
                item = _seen(link, uapi.values(self._daemons.socket_of(name)))
            except (OSError, KeyError, NsmError):  # no one listens, or it is not fully configured: of no use
                item = None
        return Tunnel(name, link, item)


def _rename(node: Session, end: making.End, index: int) -> None:
    with making.session_in(node, end.fd) as there:
        there.change(links.rename(index, end.name), f"to name {end.name}")


def _has_handshake(path: Path) -> bool:
    try:
        return uapi.values(path).get("last_handshake_time_sec", "0") != "0"
    except OSError as error:
        raise NsmError(Code.UNAVAILABLE, f"the WireGuard process is gone: {error}") from error


def _device(item: WireguardDevice) -> list[tuple[str, str]]:
    own = [("private_key", uapi.hex_key(item.private_key)), ("listen_port", str(item.local_port))]
    return [*own, *_peer(item, is_new=True)]


def _peer(item: WireguardDevice, *, is_new: bool) -> list[tuple[str, str]]:
    """A new peer takes the place of every other; the same one keeps its session."""
    remote = ip_address(item.remote)
    host = f"[{remote}]" if remote.version == 6 else str(remote)
    return [
        *([("replace_peers", "true")] if is_new else []),
        ("public_key", uapi.hex_key(item.remote_public_key)),
        ("endpoint", f"{host}:{item.remote_port}"),
        ("persistent_keepalive_interval", str(KEEPALIVE)),
        ("replace_allowed_ips", "true"),
        ("allowed_ip", "0.0.0.0/0"),
        ("allowed_ip", "::/0"),
    ]


def _seen(link: Link, values: Mapping[str, str]) -> WireguardDevice:
    assert link.tag is not None
    host, _, port = values["endpoint"].rpartition(":")
    return WireguardDevice(
        owner=link.tag.owner,
        netns=link.tag.netns,
        name=link.name,
        mtu=link.mtu,
        local_port=int(values["listen_port"]),
        private_key=uapi.base64_key(values["private_key"]),
        remote=host.strip("[]"),
        remote_port=int(port),
        remote_public_key=uapi.base64_key(values["public_key"]),
    )
