"""A WireGuard device inside a workload's namespace, its UDP socket in the node's."""

import errno
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.linux import uapi
from forwarder_vpp.dataplane.linux.wireguard_go import WireguardGo, port_taken, require_free_port
from forwarder_vpp.dataplane.netlink import links, making, wire
from forwarder_vpp.dataplane.netlink.access import Netlink, nsid_of
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.tags import Tag
from nsm.model.errors import Code, NsmError

KIND: Final = "wireguard_device"
ROLE: Final = "tunnel"
KEEPALIVE: Final = 10
"""Seconds, as upstream; setting it also makes the first handshake."""


@dataclass(frozen=True, slots=True)
class WireguardDevice:
    """Device ``name`` in ``netns`` with one peer; keys are base64, ports are UDP at the nodes."""

    owner: str
    netns: NetnsId
    name: str
    mtu: int
    local_port: int
    private_key: str = field(repr=False)
    remote: str
    remote_port: int
    remote_public_key: str

    @property
    def key(self) -> Key:
        """By the passing name of its TUN device, which comes of the owner."""
        return Key(KIND, passing_name(self.owner))

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The handle: the passing name, and the link if there is one."""

    name: str
    link: Link | None


def passing_name(owner: str) -> str:
    """The name of the TUN device at the node while it is made, and of its socket."""
    return "nsm" + hashlib.sha256(owner.encode()).hexdigest()[:11]


class WireguardDescriptor:
    """Descriptor of ``WireguardDevice`` by wireguard-go; the handle is a ``Tunnel``."""

    kind = KIND

    def __init__(self, netlink: Netlink, daemons: WireguardGo) -> None:
        self._netlink = netlink
        self._daemons = daemons

    async def create(self, item: WireguardDevice, handles: Handles) -> Tunnel:
        """Start the tunnel. NsmError: RESOURCE_EXHAUSTED for a port in use, ALREADY_EXISTS for a foreign name."""
        _ = handles
        nsid = nsid_of(self._netlink, item.netns)
        return await self._netlink.with_fds([item.netns], partial(self._create, item, nsid))

    def updatable(self, old: WireguardDevice, new: WireguardDevice) -> bool:
        """MTU, and the peer's address, port and key."""
        return (
            replace(
                old,
                mtu=new.mtu,
                remote=new.remote,
                remote_port=new.remote_port,
                remote_public_key=new.remote_public_key,
            )
            == new
        )

    async def update(
        self, old: WireguardDevice, new: WireguardDevice, handle: object, handles: Handles
    ) -> object:
        """Configure the difference."""
        _ = handles
        assert isinstance(handle, Tunnel)
        path = self._daemons.socket_of(handle.name)

        if old.mtu != new.mtu:
            message = links.resize(new.name, new.mtu)
            await self._netlink.inside(
                new.netns, lambda session: session.change(message, f"MTU of {new.name}")
            )
        if replace(old, mtu=new.mtu) != new:
            await self._netlink.at_node(lambda _: uapi.set_values(path, _peer(new)))
        return handle

    async def delete(self, item: WireguardDevice, handle: object, handles: Handles) -> None:
        """End the process; the device goes with it."""
        _ = item, handles
        assert isinstance(handle, Tunnel)
        await self._netlink.at_node(lambda _: self._daemons.end(handle.name))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Every tunnel of ours, whole or not."""
        _ = wanted
        found = {
            passing_name(link.tag.owner): link
            for link in await self._netlink.links()
            if link.kind == "tun" and link.tag is not None
        }
        names = sorted({*found, *self._daemons.names()})
        return await self._netlink.at_node(lambda _: [self._present(name, found.get(name)) for name in names])

    def _create(
        self, item: WireguardDevice, nsid: int, session: Session, fds: Mapping[NetnsId, int]
    ) -> Tunnel:
        name, tags = passing_name(item.owner), self._netlink.tags
        self._daemons.end(name)  # of an attempt that was cut short
        require_free_port(item.local_port)
        attributes = [
            (wire.IFLA_NET_NS_FD, wire.u32(fds[item.netns])),
            (wire.IFLA_MTU, wire.u32(item.mtu)),
            (wire.IFLA_GROUP, wire.u32(tags.group)),
        ]
        moving = links.change(name, attributes, up=True)
        end = making.End(nsid, fds[item.netns], item.name, Tag(item.owner, ROLE, item.netns))
        self._daemons.start(name, lambda: session.change(moving, f"to move {name}"))
        try:
            index = links.find(session, nsid, name, tags).index
            (link,) = making.make(session, tags, partial(_rename, session, end, index), [end])
            uapi.set_values(self._daemons.socket_of(name), _device(item))
        except BaseException as error:
            self._daemons.end(name)
            if isinstance(error, uapi.UapiError) and error.errno == errno.EADDRINUSE:
                raise port_taken(item.local_port) from error
            if isinstance(error, ValueError):
                raise NsmError(
                    Code.INVALID_ARGUMENT, f"WireGuard: {error}", field="mechanism.parameters"
                ) from error
            raise
        return Tunnel(name, link)

    def _present(self, name: str, link: Link | None) -> Present:
        item = None
        if link is not None and link.is_up:
            try:
                item = _seen(link, uapi.values(self._daemons.socket_of(name)))
            except (OSError, KeyError, NsmError):  # no one listens, or it is not fully configured: of no use
                item = None
        owner = link.tag.owner if link is not None and link.tag is not None else ""
        return Present(Key(KIND, name), item, Tunnel(name, link), owner)


def _rename(node: Session, end: making.End, index: int) -> None:
    with making.session_in(node, end.fd) as there:
        there.change(links.rename(index, end.name), f"to name {end.name}")


def _device(item: WireguardDevice) -> list[tuple[str, str]]:
    own = [("private_key", uapi.hex_key(item.private_key)), ("listen_port", str(item.local_port))]
    return [*own, *_peer(item)]


def _peer(item: WireguardDevice) -> list[tuple[str, str]]:
    remote = ip_address(item.remote)
    host = f"[{remote}]" if remote.version == 6 else str(remote)
    return [
        ("replace_peers", "true"),
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
