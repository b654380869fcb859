"""Every interface in VPP that has a natural key: what the objects that hang on interfaces are found by."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from forwarder_vpp.dataplane.contract.items import Key
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages.af_packet import AfPacketDetails, AfPacketDump
from forwarder_vpp.dataplane.vpp.messages.interface import InterfaceDetails, InterfaceDump
from forwarder_vpp.dataplane.vpp.messages.tap import TapDetails, TapDump
from forwarder_vpp.dataplane.vpp.messages.vxlan import VxlanDetails, VxlanDump
from forwarder_vpp.dataplane.vpp.messages.wireguard import WireguardDetails, WireguardDump

from .keys import AF_PACKET, TAP, VXLAN, WIREGUARD
from .tags import CLIENT, ENDPOINT, READY, owner_of, role_of

Details = AfPacketDetails | TapDetails | VxlanDetails | WireguardDetails


@dataclass(frozen=True, slots=True)
class Found:
    """One interface: ``details`` are those of its kind, ``common`` those every interface has."""

    key: Key
    index: int
    owner: str
    details: Details
    common: InterfaceDetails


@dataclass(frozen=True, slots=True)
class Inventory:
    """The interfaces by natural key and by index; those of the pool's ready pairs are left out."""

    by_key: Mapping[Key, Found]
    by_index: Mapping[int, Found]


def vxlan_id(local: object, remote: object, local_port: int, remote_port: int, vni: int) -> str:
    """The name of a VXLAN tunnel: its two sides and the VNI."""
    return f"{local}:{local_port}-{remote}:{remote_port}/{vni}"


def fingerprint(private_key: bytes) -> str:
    """A name for a WireGuard interface that only its private key gives, and that gives nothing away."""
    return hashlib.sha256(b"wireguard interface" + private_key).hexdigest()[:24]


def _key(details: Details, tag: str) -> Key:
    match details:
        case AfPacketDetails():
            return Key(AF_PACKET, tag if role_of(tag) in {CLIENT, ENDPOINT} else details.host_if_name)
        case TapDetails():
            return Key(TAP, tag)
        case VxlanDetails():
            name = vxlan_id(
                details.src_address, details.dst_address, details.src_port, details.dst_port, details.vni
            )
            return Key(VXLAN, name)
        case WireguardDetails():
            return Key(WIREGUARD, fingerprint(details.private_key))


async def inventory(vpp: Vpp) -> Inventory:
    """Ask VPP for all of them."""
    common = {each.sw_if_index: each for each in await vpp.dump(InterfaceDump())}
    kinds: list[Details] = [
        *await vpp.dump(AfPacketDump()),
        *await vpp.dump(TapDump()),
        *await vpp.dump(VxlanDump()),
        *await vpp.dump(WireguardDump(show_private_key=True)),
    ]
    by_index = {
        each.sw_if_index: Found(_key(each, own.tag), each.sw_if_index, owner_of(own.tag), each, own)
        for each in kinds
        if (own := common.get(each.sw_if_index)) is not None and role_of(own.tag) != READY
    }
    return Inventory({each.key: each for each in by_index.values()}, by_index)
