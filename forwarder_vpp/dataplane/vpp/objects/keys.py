"""The kinds of objects in VPP, and handles as the numbers they are."""

from typing import Final

from forwarder_vpp.dataplane.contract.items import Handles, Key

AF_PACKET: Final = "vpp_af_packet"
TAP: Final = "vpp_tap"
VXLAN: Final = "vpp_vxlan"
WIREGUARD: Final = "vpp_wireguard"
PEER: Final = "vpp_wireguard_peer"
L2_XCONNECT: Final = "vpp_l2_xconnect"
L3_XCONNECT: Final = "vpp_l3_xconnect"
NEIGHBOUR: Final = "vpp_neighbour"
PORT: Final = "vpp_port"
ACL: Final = "vpp_acl"
ACL_BINDING: Final = "vpp_acl_binding"
ADDRESS: Final = "vpp_address"
ROUTE: Final = "vpp_route"
UDP_PORT: Final = "vpp_udp_port"


def number(handles: Handles, key: Key) -> int:
    """The index behind ``key``. KeyError if it does not exist."""
    handle = handles.handle(key)
    assert isinstance(handle, int)
    return handle
