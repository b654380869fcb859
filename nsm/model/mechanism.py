"""How one hop carries the packets: class, type and parameters (reference §2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LOCAL: Final = "LOCAL"
REMOTE: Final = "REMOTE"

KERNEL: Final = "KERNEL"
MEMIF: Final = "MEMIF"
VXLAN: Final = "VXLAN"
WIREGUARD: Final = "WIREGUARD"
IPSEC: Final = "IPSEC"
VLAN: Final = "VLAN"
VFIO: Final = "VFIO"
SRV6: Final = "SRV6"
NOOP: Final = "NOOP"
MECHANISM_TYPES: Final = (KERNEL, MEMIF, VXLAN, WIREGUARD, IPSEC, VLAN, VFIO, SRV6, NOOP)

ETHERNET: Final = "ETHERNET"
IP: Final = "IP"
PAYLOADS: Final = (ETHERNET, IP)

INODE_URL: Final = "inodeURL"
INTERFACE_NAME: Final = "name"
SRC_IP: Final = "src_ip"
DST_IP: Final = "dst_ip"
SRC_PORT: Final = "src_port"
DST_PORT: Final = "dst_port"
SRC_PUBLIC_KEY: Final = "src_public_key"
DST_PUBLIC_KEY: Final = "dst_public_key"
SRC_ORIGINAL_IP: Final = "orig_src_ip"
DST_ORIGINAL_IP: Final = "orig_dst_ip"
VNI: Final = "vni"
MTU: Final = "MTU"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """``connection.Mechanism``: ``parameters`` values are strings, numbers in decimal."""

    cls: str
    type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    unknown: bytes = field(default=b"", repr=False)

    def get(self, key: str, default: str = "") -> str:
        """The parameter of that key, or ``default``."""
        return self.parameters.get(key, default)

    def having(self, **changes: str) -> "Mechanism":
        """A copy with these parameters set."""
        return self.with_parameters({**self.parameters, **changes})

    def with_parameters(self, parameters: Mapping[str, str]) -> "Mechanism":
        """A copy with the whole parameter map replaced."""
        return Mechanism(self.cls, self.type, dict(parameters), self.unknown)

    def without(self, *keys: str) -> "Mechanism":
        """A copy without these parameters."""
        return self.with_parameters({k: v for k, v in self.parameters.items() if k not in keys})
