"""Interfaces of every kind: list, tag, flags, MTU, addresses, events, segmentation offload."""

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, event, reply, request
from forwarder_vpp.dataplane.vpp.fields import (
    flag,
    four,
    i32,
    ipnet,
    last_text,
    mac,
    text64,
    u8,
    u16,
    u32,
)

from .common import ANY, Done

ADMIN_UP = 1
LINK_UP = 2
RX_INTERRUPT = 2
RX_ADAPTIVE = 3


@details("sw_interface_details", 0x6C221FC7)
class InterfaceDetails:
    """One interface; ``mtu`` is L3, IPv4, IPv6, MPLS in bytes, ``link_speed`` in kbit/s."""

    sw_if_index: u32
    sup_sw_if_index: u32
    l2_address: mac
    flags: u32
    type: u32
    link_duplex: u32
    link_speed: u32
    link_mtu: u16
    mtu: four
    sub_id: u32
    sub_number_of_tags: u8
    sub_outer_vlan_id: u16
    sub_inner_vlan_id: u16
    sub_if_flags: u32
    vtr_op: u32
    vtr_push_dot1q: u32
    vtr_tag1: u32
    vtr_tag2: u32
    outer_tag: u16
    b_dmac: mac
    b_smac: mac
    b_vlanid: u16
    i_sid: u32
    interface_name: text64
    interface_dev_type: text64
    tag: text64


@dump("sw_interface_dump", 0xAA610C27)
class InterfaceDump(Dump[InterfaceDetails]):
    """All interfaces, or one."""

    sw_if_index: u32 = ANY
    name_filter_valid: flag = False
    name_filter: last_text = ""


@request("sw_interface_tag_add_del", 0x426F8BC1)
class InterfaceTag(Call[Done]):
    """Tag of at most 63 bytes; deleting looks the interface up by index and ignores the tag."""

    is_add: flag
    sw_if_index: u32
    tag: text64


@request("sw_interface_set_flags", 0xF5AEC1B8)
class InterfaceFlags(Call[Done]):
    """``flags``: ADMIN_UP or 0."""

    sw_if_index: u32
    flags: u32


@request("sw_interface_set_mtu", 0x5CBE85E5)
class InterfaceMtu(Call[Done]):
    """Bytes for L3, IPv4, IPv6, MPLS; 0 in the last three = as L3."""

    sw_if_index: u32
    mtu: four


@request("sw_interface_set_default_rx_mode", 0x776B4837)
class DefaultRxMode(Call[Done]):
    """How queues of interfaces made later are served."""

    mode: u32


@request("sw_interface_add_del_address", 0x5463D73B)
class InterfaceAddress(Call[Done]):
    """An address with its prefix length."""

    sw_if_index: u32
    is_add: flag
    del_all: flag
    prefix: ipnet


@reply(0x40EF2C08)
class MacReply:
    """The interface's hardware address."""

    retval: i32
    mac_address: mac


@request("sw_interface_get_mac_address", 0xF9E6675E, reads=True)
class InterfaceMac(Call[MacReply]):
    """Ask for the hardware address."""

    sw_if_index: u32


@request("want_interface_events", 0x476F5A08, reads=True)
class WantInterfaceEvents(Call[Done]):
    """Ask for ``InterfaceEvent`` from now on."""

    enable_disable: u32
    pid: u32


@event("sw_interface_event", 0x2D3D95A7)
class InterfaceEvent:
    """Flags of an interface changed, or it is gone."""

    pid: u32
    sw_if_index: u32
    flags: u32
    deleted: flag


@request("feature_gso_enable_disable", 0x5501ADEE)
class InterfaceGso(Call[Done]):
    """Cut large segments in software at output of an interface that cannot carry them."""

    sw_if_index: u32
    enable_disable: flag


MESSAGES = (
    InterfaceDump,
    InterfaceTag,
    InterfaceFlags,
    InterfaceMtu,
    DefaultRxMode,
    InterfaceAddress,
    InterfaceMac,
    WantInterfaceEvents,
    InterfaceEvent,
    InterfaceGso,
)
