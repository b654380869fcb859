"""VXLAN: Ethernet payload between nodes (reference §2.5)."""

from ipaddress import ip_address
from typing import Final

from forwarder_vpp.dataplane.contract.intent import VxlanEnd
from nsm.model.errors import invalid
from nsm.model.mechanism import (
    DST_IP,
    DST_ORIGINAL_IP,
    DST_PORT,
    ETHERNET,
    MTU,
    REMOTE,
    SRC_IP,
    SRC_ORIGINAL_IP,
    SRC_PORT,
    VNI,
    VXLAN,
    Mechanism,
)

from .tunnel import FIELD, Choice, Underlay, check_addresses, common_mtu, number

PORT: Final = 4789
MAX_VNI: Final = 0xFFFFFF


class Vxlan:
    """``Tunnel`` VXLAN; the answering side chooses the VNI."""

    type = VXLAN
    payload = ETHERNET
    needs_key = False
    needs_port = False

    def overhead(self, ip: str) -> int:
        """IP, UDP 8, VXLAN 8, Ethernet 14, a VLAN tag 4."""
        return 74 if ":" in ip else 54

    def offer(self, choice: Choice, underlay: Underlay) -> Mechanism:
        """Our address, port and MTU; the VNI only where one was agreed on before."""
        _ = choice
        mtu = underlay.mtu - self.overhead(underlay.ip)
        return Mechanism(
            REMOTE, VXLAN, {SRC_IP: underlay.ip, SRC_PORT: str(underlay.vxlan_port), MTU: str(mtu)}
        )

    def accept(self, offered: Mechanism, choice: Choice, underlay: Underlay) -> Mechanism:
        """Our side added, the smaller MTU, ``choice.vni``."""
        agreed = offered.having(
            **{DST_IP: underlay.ip, DST_PORT: str(underlay.vxlan_port), VNI: str(choice.vni)}
        )
        check_addresses(agreed)
        number(agreed, SRC_PORT, PORT, 1, 0xFFFF)
        mtu = common_mtu(offered, underlay.mtu - self.overhead(underlay.ip))
        return agreed.having(**{MTU: str(mtu)})

    def answering_end(self, agreed: Mechanism, choice: Choice) -> VxlanEnd:
        """Local is *dst*."""
        source, destination = check_addresses(agreed)
        ports = number(agreed, DST_PORT, PORT, 1, 0xFFFF), number(agreed, SRC_PORT, PORT, 1, 0xFFFF)
        return VxlanEnd(destination, source, choice.vni, *ports)

    def requesting_end(self, agreed: Mechanism, choice: Choice) -> VxlanEnd:
        """Local is *src*; the VNI is the answer's."""
        _ = choice
        source, destination = check_addresses(agreed)
        ports = number(agreed, SRC_PORT, PORT, 1, 0xFFFF), number(agreed, DST_PORT, PORT, 1, 0xFFFF)
        vni = agreed_vni(agreed)
        if not vni:
            raise invalid(f"{FIELD}.{VNI}", f"a number of 1 to {MAX_VNI} in the answer", agreed.get(VNI))
        return VxlanEnd(source, destination, vni, *ports)


def agreed_vni(mechanism: Mechanism) -> int:
    """The VNI; 0 = none yet."""
    return number(mechanism, VNI, 0, 0, MAX_VNI)


def with_parity(number: int, offered: Mechanism, ip: str) -> int:
    """``number`` as a VNI that the node at the other end never chooses (trap 44).

    Even when src <= dst by their 16-byte forms, odd otherwise; the addresses before any translation count.
    ``ip`` is ours, the answering side's.
    """
    source = offered.get(SRC_ORIGINAL_IP) or offered.get(SRC_IP)
    destination = offered.get(DST_ORIGINAL_IP) or ip
    is_odd = _sixteen_bytes(source) > _sixteen_bytes(destination)
    return number & (MAX_VNI - 1) | is_odd


def _sixteen_bytes(text: str) -> bytes:
    try:
        address = ip_address(text)
    except ValueError:
        raise invalid(f"{FIELD}.{SRC_IP}", "an IP address", text) from None
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
