"""AF_PACKET interfaces: VPP on a kernel link."""

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, request
from forwarder_vpp.dataplane.vpp.fields import flag, mac, text64, u16, u32

from .common import Done, MadeInterface

MODE_ETHERNET = 1
MODE_IP = 2
QDISC_BYPASS = 1
CKSUM_GSO = 2
VERSION_2 = 8


@request("af_packet_create_v3", 0xB3A809D4, alone=True)
class AfPacketCreate(Call[MadeInterface]):
    """Sizes in bytes; 0 frames per block = VPP's default."""

    mode: u32
    hw_addr: mac
    use_random_hw_addr: flag
    host_if_name: text64
    rx_frame_size: u32
    tx_frame_size: u32
    rx_frames_per_block: u32
    tx_frames_per_block: u32
    flags: u32
    num_rx_queues: u16 = 1
    num_tx_queues: u16 = 1


@request("af_packet_delete", 0x863FA648, alone=True)
class AfPacketDelete(Call[Done]):
    """By the name of the kernel link."""

    host_if_name: text64


@details("af_packet_details", 0x58C7C042)
class AfPacketDetails:
    """One interface."""

    sw_if_index: u32
    host_if_name: text64


@dump("af_packet_dump", 0x51077D14)
class AfPacketDump(Dump[AfPacketDetails]):
    """Every interface of this kind."""


MESSAGES = (AfPacketCreate, AfPacketDelete, AfPacketDump)
