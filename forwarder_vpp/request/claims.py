"""What only one connection can have: a name or address in a namespace, a port, a VNI towards a node."""

import secrets
from collections.abc import Iterable, Iterator

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, VxlanEnd, WireguardEnd
from forwarder_vpp.mechanisms.kernel import NAME_FIELD
from forwarder_vpp.mechanisms.tunnel import FIELD
from forwarder_vpp.mechanisms.vxlan import MAX_VNI, with_parity
from forwarder_vpp.mechanisms.wireguard import OWN_PORTS
from forwarder_vpp.request.validation import IP_CONTEXT
from nsm.model.addresses import ip_interface
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import VNI, Mechanism

Claim = tuple[object, ...]
"""What is claimed; the first part says of which sort it is."""

_TRIES = 4096
_FIELDS = {
    "interface": NAME_FIELD,
    "address": f"{IP_CONTEXT}.src_ip_addrs",
    "port": f"{FIELD}.src_port",
    "vni": f"{FIELD}.{VNI}",
}


class Claims:
    """Who has what, by connection id."""

    def __init__(self) -> None:
        self._owner: dict[Claim, str] = {}
        self._held: dict[str, set[Claim]] = {}

    def holders(self, owner: str, claims: Iterable[Claim]) -> frozenset[str]:
        """Who else has one of them."""
        return frozenset(self._owner[claim] for claim in claims if self._owner.get(claim, owner) != owner)

    def take(self, owner: str, claims: Iterable[Claim]) -> None:
        """All of them or, with NsmError ALREADY_EXISTS, none."""
        wanted = tuple(claims)
        for claim in wanted:
            if self._owner.get(claim, owner) != owner:
                what = " ".join(str(part) for part in claim)
                text = f"{what} is in use by another connection"
                raise NsmError(Code.ALREADY_EXISTS, text, field=_FIELDS.get(str(claim[0]), ""))
        for claim in wanted:
            self._owner[claim] = owner
        self._held.setdefault(owner, set()).update(wanted)

    def keep(self, owner: str, claims: Iterable[Claim]) -> None:
        """Give back everything of ``owner`` but ``claims``."""
        kept = set(claims)
        held = self._held.pop(owner, set())
        for claim in held - kept:
            del self._owner[claim]
        if held & kept:
            self._held[owner] = held & kept

    def new_port(self, owner: str) -> int:
        """A free UDP port for a WireGuard tunnel. NsmError RESOURCE_EXHAUSTED."""
        for _ in range(_TRIES):
            port = secrets.choice(OWN_PORTS)
            if ("port", port) not in self._owner:
                self.take(owner, [("port", port)])
                return port
        raise NsmError(Code.RESOURCE_EXHAUSTED, "no UDP port is free for another tunnel")

    def new_vni(self, owner: str, remote: str, offered: Mechanism, ip: str) -> int:
        """A VNI that is free towards ``remote``. NsmError RESOURCE_EXHAUSTED."""
        for _ in range(_TRIES):
            vni = with_parity(secrets.randbelow(MAX_VNI + 1), offered, ip)
            if vni and ("vni", remote, vni) not in self._owner:
                self.take(owner, [("vni", remote, vni)])
                return vni
        raise NsmError(Code.RESOURCE_EXHAUSTED, f"no VNI is free towards {remote}")


def claims_of(intent: Intent) -> Iterator[Claim]:
    """What an intent has for itself alone. An address counts at clients: an endpoint may have one for all."""
    for end in (intent.client, intent.endpoint):
        match end:
            case KernelEnd():
                yield "interface", end.interface, "in", end.netns
            case VxlanEnd():
                yield "vni", end.remote, end.vni
            case WireguardEnd() if not end.shared:
                yield "port", end.local_port
            case WireguardEnd():
                pass
    if isinstance(intent.client, KernelEnd):
        for address in intent.client.addresses:
            yield "address", ip_interface(address).ip, "in", intent.client.netns
