"""The kernel's WireGuard over generic netlink (linux/wireguard.h): device and peer as attributes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6
from typing import Final

from forwarder_vpp.dataplane.linux.keys import key_bytes, key_text
from forwarder_vpp.dataplane.netlink import genl, wire
from forwarder_vpp.dataplane.netlink.wire import Attribute, Message

FAMILY: Final = "wireguard"
_VERSION: Final = 1
_GET_DEVICE, _SET_DEVICE = 0, 1

_DEVICE_NAME, _DEVICE_PRIVATE_KEY, _DEVICE_FLAGS = 2, 3, 5
_DEVICE_PORT, _DEVICE_PEERS = 6, 8
_DEVICE_REPLACE_PEERS: Final = 1
_PEER_PUBLIC_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_KEEPALIVE = 1, 3, 4, 5
_PEER_LAST_HANDSHAKE, _PEER_ALLOWED_IPS = 6, 9
_PEER_REPLACE_ALLOWED_IPS: Final = 2
_ALLOWED_FAMILY, _ALLOWED_ADDRESS, _ALLOWED_LENGTH = 1, 2, 3
_IN_LIST: Final = 0

_U16: Final = struct.Struct("=H")
_SOCKADDR_IN: Final = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6: Final = struct.Struct("=H2sI16sI")
_TIMESPEC: Final = struct.Struct("=qq")


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that may send everything; ``keepalive`` in s, keys in base64, no ``remote`` = none known."""

    public_key: str
    remote: str
    remote_port: int
    keepalive: int
    last_handshake: float = 0.0
    """Unix seconds, 0 = never."""


@dataclass(frozen=True, slots=True)
class Device:
    """A WireGuard device as the kernel tells it."""

    private_key: str = field(repr=False)
    port: int
    peers: tuple[Peer, ...]


def get(number: int, name: str) -> Message:
    """Asks for a device (as a dump); ``number`` is the family's."""
    return genl.message(number, _GET_DEVICE, _VERSION, [(_DEVICE_NAME, wire.text(name))])


def set_device(number: int, name: str, device: Device) -> Message:
    """Configures a device: its key, its port, its peers. ValueError for a key that is not 32 bytes in base64."""
    own = [(_DEVICE_PRIVATE_KEY, key_bytes(device.private_key)), (_DEVICE_PORT, _U16.pack(device.port))]
    return _set(number, name, own, device.peers, is_new=True)


def set_peer(number: int, name: str, peer: Peer, *, is_new: bool) -> Message:
    """Configures the peer; a new one takes the place of every other, the same one keeps its session."""
    return _set(number, name, [], (peer,), is_new=is_new)


def parse(bodies: Sequence[bytes]) -> Device:
    """What the answers to ``get`` say together (many peers come in several)."""
    first = genl.attributes(bodies[0])
    peers = [
        _parsed(wire.unpack(each))
        for body in bodies
        for each in wire.unpack_list(genl.attributes(body).get(_DEVICE_PEERS, b""))
    ]
    key = key_text(first.get(_DEVICE_PRIVATE_KEY, b""))
    return Device(key, wire.number(first, _DEVICE_PORT), tuple(peers))


def _set(number: int, name: str, own: list[Attribute], peers: Sequence[Peer], *, is_new: bool) -> Message:
    flags = _DEVICE_REPLACE_PEERS if is_new else 0
    shown = [wire.nested(_IN_LIST, _peer(each)) for each in peers]
    content = [(_DEVICE_NAME, wire.text(name)), (_DEVICE_FLAGS, wire.u32(flags)), *own]
    return genl.message(number, _SET_DEVICE, _VERSION, [*content, wire.nested(_DEVICE_PEERS, shown)])


def _peer(peer: Peer) -> list[Attribute]:
    everything: list[IPv4Address | IPv6Address] = [IPv4Address(0), IPv6Address(0)]
    return [
        (_PEER_PUBLIC_KEY, key_bytes(peer.public_key)),
        (_PEER_FLAGS, wire.u32(_PEER_REPLACE_ALLOWED_IPS)),
        (_PEER_ENDPOINT, _sockaddr(peer.remote, peer.remote_port)),
        (_PEER_KEEPALIVE, _U16.pack(peer.keepalive)),
        wire.nested(_PEER_ALLOWED_IPS, [wire.nested(_IN_LIST, _allowed(each)) for each in everything]),
    ]


def _allowed(network: IPv4Address | IPv6Address) -> list[Attribute]:
    family = AF_INET if network.version == 4 else AF_INET6
    return [
        (_ALLOWED_FAMILY, _U16.pack(family)),
        (_ALLOWED_ADDRESS, network.packed),
        (_ALLOWED_LENGTH, wire.u8(0)),
    ]


def _sockaddr(remote: str, port: int) -> bytes:
    address = ip_address(remote)
    if address.version == 4:
        return _SOCKADDR_IN.pack(AF_INET, wire.u16be(port), address.packed)
    return _SOCKADDR_IN6.pack(AF_INET6, wire.u16be(port), 0, address.packed, 0)


def _parsed(attributes: dict[int, bytes]) -> Peer:
    remote, port = _endpoint(attributes.get(_PEER_ENDPOINT, b""))
    seconds, nanoseconds = _TIMESPEC.unpack(attributes.get(_PEER_LAST_HANDSHAKE, bytes(_TIMESPEC.size)))
    return Peer(
        public_key=key_text(attributes.get(_PEER_PUBLIC_KEY, b"")),
        remote=remote,
        remote_port=port,
        keepalive=wire.number(attributes, _PEER_KEEPALIVE),
        last_handshake=seconds + nanoseconds / 1e9,
    )


def _endpoint(data: bytes) -> tuple[str, int]:
    if len(data) == _SOCKADDR_IN.size:
        _, port, address = _SOCKADDR_IN.unpack(data)
    elif len(data) == _SOCKADDR_IN6.size:
        _, port, _, address, _ = _SOCKADDR_IN6.unpack(data)
    else:
        return "", 0
    return str(ip_address(address)), int.from_bytes(port)
