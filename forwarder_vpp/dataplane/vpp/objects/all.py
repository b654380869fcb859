"""The explicit list of the kinds of objects in VPP."""

from typing import Any

from forwarder_vpp.dataplane.contract.items import Descriptor
from forwarder_vpp.dataplane.contract.vpp import Vpp

from .acl import AclBindings, Acls
from .address import Addresses
from .af_packet import AfPackets
from .l2_xconnect import L2Xconnects
from .l3_xconnect import L3Xconnects
from .neighbour import Neighbours
from .port import Ports
from .route import Routes
from .vxlan import VxlanTunnels
from .wireguard import Wireguards
from .wireguard_peer import WireguardPeers


def vpp_descriptors(
    vpp: Vpp, af_packets: AfPackets | None = None, peers: WireguardPeers | None = None
) -> tuple[Descriptor[Any], ...]:
    """One descriptor of each kind that needs nothing but VPP; ``af_packets`` and ``peers`` in place of plain ones."""
    return (
        af_packets or AfPackets(vpp),
        VxlanTunnels(vpp),
        Wireguards(vpp),
        peers or WireguardPeers(vpp),
        L2Xconnects(vpp),
        L3Xconnects(vpp),
        Neighbours(vpp),
        Acls(vpp),
        AclBindings(vpp),
        Addresses(vpp),
        Routes(vpp),
        Ports(vpp),
    )
