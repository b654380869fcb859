"""VXLAN tunnels."""

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, request
from forwarder_vpp.dataplane.vpp.fields import flag, ipaddr, u16, u32

from .common import ANY, MadeInterface

DECAP_L2_INPUT = ANY
"""Decapsulated frames go to layer 2 input."""


@request("vxlan_add_del_tunnel_v3", 0x0072B037)
class VxlanTunnel(Call[MadeInterface]):
    """``src`` is the own side; a tunnel is known by both addresses, both ports and the VNI."""

    is_add: flag
    instance: u32
    src_address: ipaddr
    dst_address: ipaddr
    src_port: u16
    dst_port: u16
    mcast_sw_if_index: u32
    encap_vrf_id: u32
    decap_next_index: u32
    vni: u32
    is_l3: flag = False


@details("vxlan_tunnel_v2_details", 0xD3BDD4D9)
class VxlanDetails:
    """One tunnel."""

    sw_if_index: u32
    instance: u32
    src_address: ipaddr
    dst_address: ipaddr
    src_port: u16
    dst_port: u16
    mcast_sw_if_index: u32
    encap_vrf_id: u32
    decap_next_index: u32
    vni: u32


@dump("vxlan_tunnel_v2_dump", 0xF9E6675E)
class VxlanDump(Dump[VxlanDetails]):
    """One tunnel or all."""

    sw_if_index: u32 = ANY


MESSAGES = (VxlanTunnel, VxlanDump)
