"""Mechanisms NSM knows and this forwarder does not carry yet: a refusal that says so."""

from collections.abc import Mapping
from typing import Final

from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import IPSEC, MECHANISM_TYPES, MEMIF, NOOP, SRV6, VFIO, VLAN, Mechanism

REASONS: Final[Mapping[str, str]] = {
    MEMIF: "shared-memory interfaces are not carried by this forwarder; offer KERNEL",
    IPSEC: "IPsec tunnels are not carried by this forwarder; offer WIREGUARD",
    VLAN: "VLANs of the node's network are not carried by this forwarder",
    VFIO: "this forwarder manages no SR-IOV devices; offer KERNEL",
    SRV6: "no component of NSM carries SRv6",
    NOOP: "this forwarder carries packets itself; offer KERNEL",
}


def refusal(mechanism: Mechanism, field: str) -> NsmError:
    """UNIMPLEMENTED with the reason for a type NSM knows, INVALID_ARGUMENT for any other."""
    reason = REASONS.get(mechanism.type)
    if reason is None:
        known = ", ".join(MECHANISM_TYPES)
        text = f"expected one of {known}, got {mechanism.type!r}"
        return NsmError(Code.INVALID_ARGUMENT, text, field=f"{field}.type")
    return NsmError(Code.UNIMPLEMENTED, f"{mechanism.type}: {reason}", field=f"{field}.type")
