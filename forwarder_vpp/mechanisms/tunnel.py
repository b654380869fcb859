"""What every tunnel mechanism is to the request pipeline, and the parameters tunnels share (reference §2.2)."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Protocol

from forwarder_vpp.dataplane.contract.intent import End
from nsm.model.errors import NsmError, invalid
from nsm.model.mechanism import DST_IP, MTU, SRC_IP, Mechanism

FIELD: Final = "connection.mechanism.parameters"


@dataclass(frozen=True, slots=True)
class Underlay:
    """Our side of every tunnel: ``ip``, the underlay's MTU in bytes, our VXLAN port."""

    ip: str
    mtu: int
    vxlan_port: int = 4789


@dataclass(frozen=True, slots=True)
class Choice:
    """Values chosen for one end of one connection; 0 and "" = not chosen. Keys are standard base64."""

    vni: int = 0
    port: int = 0
    private_key: str = field(default="", repr=False)
    public_key: str = ""


class Tunnel(Protocol):
    """One tunnel mechanism. Every method is pure; NsmError names the parameter that is wrong."""

    @property
    def type(self) -> str:
        """``VXLAN``."""

    @property
    def payload(self) -> str:
        """The one payload it carries."""

    @property
    def needs_key(self) -> bool:
        """Whether a ``Choice`` needs a key pair."""

    @property
    def needs_port(self) -> bool:
        """Whether a ``Choice`` needs a UDP port of its own."""

    def overhead(self, ip: str) -> int:
        """Bytes it adds to a packet over the underlay address ``ip``."""

    def offer(self, choice: Choice, underlay: Underlay) -> Mechanism:
        """What the requesting side prefers."""

    def accept(self, offered: Mechanism, choice: Choice, underlay: Underlay) -> Mechanism:
        """What the answering side agrees to."""

    def answering_end(self, agreed: Mechanism, choice: Choice) -> End:
        """The tunnel as the answering side makes it."""

    def requesting_end(self, agreed: Mechanism, choice: Choice) -> End:
        """The tunnel as the requesting side makes it."""


def address(mechanism: Mechanism, key: str) -> str:
    """The parameter as an IP address in canonical form."""
    text = mechanism.get(key)
    try:
        return str(ip_address(text))
    except ValueError:
        raise invalid(f"{FIELD}.{key}", "an IP address", text) from None


def number(mechanism: Mechanism, key: str, default: int, first: int, last: int) -> int:
    """The parameter as a number of ``first`` to ``last``; ``default`` where it is not set."""
    text = mechanism.get(key)
    if not text:
        return default
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    if not first <= value <= last:
        raise invalid(f"{FIELD}.{key}", f"a number of {first} to {last}", text)
    return value


def common_mtu(mechanism: Mechanism, own: int) -> int:
    """The smaller of ours and the parameter ``MTU``, where that is set."""
    theirs = number(mechanism, MTU, 0, 0, 0xFFFF_FFFF)
    return min(theirs, own) if theirs else own


def check_addresses(mechanism: Mechanism) -> tuple[str, str]:
    """``src_ip`` and ``dst_ip``: two different addresses of one family."""
    source, destination = address(mechanism, SRC_IP), address(mechanism, DST_IP)
    if (":" in source) != (":" in destination):
        raise invalid(f"{FIELD}.{SRC_IP}", f"an address of the family of {destination}", source)
    if source == destination:
        raise invalid(f"{FIELD}.{SRC_IP}", f"another address than the far side's {destination}", source)
    return source, destination


def no_tunnel(mechanism: Mechanism) -> NsmError:
    """A mechanism that is no tunnel of ours."""
    return invalid(
        "connection.mechanism.type", "a tunnel of this forwarder", f"{mechanism.cls} {mechanism.type}"
    )
