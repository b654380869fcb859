"""Layer 2 cross-connects."""

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, request
from forwarder_vpp.dataplane.vpp.fields import flag, u32

from .common import Done


@request("sw_interface_set_l2_xconnect", 0x4FA28A85)
class L2Xconnect(Call[Done]):
    """One direction: what ``rx`` receives leaves by ``tx``."""

    rx_sw_if_index: u32
    tx_sw_if_index: u32
    enable: flag


@details("l2_xconnect_details", 0x472B6B67)
class L2XconnectDetails:
    """One direction."""

    rx_sw_if_index: u32
    tx_sw_if_index: u32


@dump("l2_xconnect_dump", 0x51077D14)
class L2XconnectDump(Dump[L2XconnectDetails]):
    """Every direction."""


MESSAGES = (L2Xconnect, L2XconnectDump)
