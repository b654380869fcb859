"""WireGuard interfaces and their peers. Keys never appear in a repr."""

from dataclasses import field
from typing import ClassVar

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, event, reply, request
from forwarder_vpp.dataplane.vpp.fields import Count, flag, i32, ipaddr, key32, last_ipnets, u8, u16, u32

from .common import ANY, Done, MadeInterface

DEAD = 1
ESTABLISHED = 2


@request("wireguard_interface_create", 0xA530137E)
class WireguardCreate(Call[MadeInterface]):
    """``port`` is the own UDP port, ``src_ip`` the own tunnel address; VPP derives the public key."""

    user_instance: u32
    sw_if_index: u32
    private_key: key32 = field(repr=False)
    public_key: key32
    port: u16
    src_ip: ipaddr
    generate_key: flag = False


@request("wireguard_interface_delete", 0xF9E6675E)
class WireguardDelete(Call[Done]):
    """On a shared port the interface made last must go last (reference §6.1)."""

    sw_if_index: u32


@details("wireguard_interface_details", 0x0DD4865D)
class WireguardDetails:
    """One interface."""

    user_instance: u32
    sw_if_index: u32
    private_key: key32 = field(repr=False)
    public_key: key32
    port: u16
    src_ip: ipaddr


@dump("wireguard_interface_dump", 0x2C954158)
class WireguardDump(Dump[WireguardDetails]):
    """One interface or all."""

    show_private_key: flag = False
    sw_if_index: u32 = ANY


@reply(0x084A0CD3)
class MadePeer:
    """The peer that was made."""

    retval: i32
    peer_index: u32


@request("wireguard_peer_add_v2", 0x4A07BA90)
class PeerAdd(Call[MadePeer]):
    """``port`` and ``endpoint`` are the remote's; ``persistent_keepalive`` in seconds."""

    peer_index: u32
    preshared_key: key32 = field(repr=False)
    preshared_key_set: flag
    public_key: key32
    port: u16
    persistent_keepalive: u16
    table_id: u32
    endpoint: ipaddr
    sw_if_index: u32
    flags: u8
    n_allowed_ips: ClassVar[Count] = Count("B")
    allowed_ips: last_ipnets


@request("wireguard_peer_remove", 0x3B74607A)
class PeerRemove(Call[Done]):
    """Remove one peer."""

    peer_index: u32


@details("wireguard_peers_v2_details", 0xF5B86F42)
class PeerDetails:
    """One peer; ``flags`` has ESTABLISHED after a handshake."""

    peer_index: u32
    preshared_key: key32 = field(repr=False)
    preshared_key_set: flag
    public_key: key32
    port: u16
    persistent_keepalive: u16
    table_id: u32
    endpoint: ipaddr
    sw_if_index: u32
    flags: u8
    n_allowed_ips: ClassVar[Count] = Count("B")
    allowed_ips: last_ipnets


@dump("wireguard_peers_v2_dump", 0x3B74607A)
class PeerDump(Dump[PeerDetails]):
    """One peer or all."""

    peer_index: u32 = ANY


@request("want_wireguard_peer_events", 0x3BC666C8, reads=True)
class WantPeerEvents(Call[Done]):
    """Ask for the events of a peer; with ANY for those of the peers that the interface has now."""

    sw_if_index: u32
    peer_index: u32
    enable_disable: u32
    pid: u32


@event("wireguard_peer_event", 0x4E1B5D67)
class PeerEvent:
    """The flags of a peer changed."""

    pid: u32
    peer_index: u32
    flags: u8


MESSAGES = (
    WireguardCreate,
    WireguardDelete,
    WireguardDump,
    PeerAdd,
    PeerRemove,
    PeerDump,
    WantPeerEvents,
    PeerEvent,
)
