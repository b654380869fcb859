"""Virtio taps in the kernel."""

from typing import Annotated

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, request
from forwarder_vpp.dataplane.vpp.fields import Raw, flag, last_text, mac, text64, u16, u32

from .common import ANY, Done, MadeInterface

GSO = 1
CSUM_OFFLOAD = 2
TUN = 16
GRO_COALESCE = 32

_PREFIX4 = Annotated[bytes, Raw(5)]
_PREFIX6 = Annotated[bytes, Raw(17)]
_ADDRESS4 = Annotated[bytes, Raw(4)]
_ADDRESS6 = Annotated[bytes, Raw(16)]


@request("tap_create_v3", 0x3F3FD1DF)
class TapCreate(Call[MadeInterface]):
    """Each ``*_set`` says whether the field after it counts; ``id`` = ANY lets VPP choose."""

    id: u32
    use_random_mac: flag
    mac_address: mac
    num_rx_queues: u16
    num_tx_queues: u16
    tx_ring_sz: u16
    rx_ring_sz: u16
    host_mtu_set: flag
    host_mtu_size: u32
    host_mac_addr_set: flag
    host_mac_addr: mac
    host_ip4_prefix_set: flag
    host_ip4_prefix: _PREFIX4
    host_ip6_prefix_set: flag
    host_ip6_prefix: _PREFIX6
    host_ip4_gw_set: flag
    host_ip4_gw: _ADDRESS4
    host_ip6_gw_set: flag
    host_ip6_gw: _ADDRESS6
    tap_flags: u32
    host_namespace_set: flag
    host_namespace: text64
    host_if_name_set: flag
    host_if_name: text64
    host_bridge_set: flag
    host_bridge: text64
    tag: last_text


@request("tap_delete_v2", 0xF9E6675E)
class TapDelete(Call[Done]):
    """Removes the kernel's side too."""

    sw_if_index: u32


@details("sw_interface_tap_v2_details", 0x1E2B2A47)
class TapDetails:
    """One tap."""

    sw_if_index: u32
    id: u32
    tx_ring_sz: u16
    rx_ring_sz: u16
    host_mtu_size: u32
    host_mac_addr: mac
    host_ip4_prefix: _PREFIX4
    host_ip6_prefix: _PREFIX6
    tap_flags: u32
    dev_name: text64
    host_if_name: text64
    host_namespace: text64
    host_bridge: text64


@dump("sw_interface_tap_v2_dump", 0xF9E6675E)
class TapDump(Dump[TapDetails]):
    """One tap or all."""

    sw_if_index: u32 = ANY


MESSAGES = (TapCreate, TapDelete, TapDump)
