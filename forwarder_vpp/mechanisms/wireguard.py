"""WireGuard: IP payload between nodes (reference §2.6).

A Go peer puts every tunnel on port 51820. Two of our forwarders agree on a port per connection: the requester adds
``src_own_port``, which a Go peer carries along and never reads; the answerer that understands it adds
``dst_own_port``, and only then both leave 51820. The standard parameters stay what a Go peer expects.
"""

from base64 import b64decode
from typing import Final

from forwarder_vpp.dataplane.contract.intent import WireguardEnd
from nsm.model.errors import invalid
from nsm.model.mechanism import (
    DST_IP,
    DST_PORT,
    DST_PUBLIC_KEY,
    IP,
    MTU,
    REMOTE,
    SRC_IP,
    SRC_PORT,
    SRC_PUBLIC_KEY,
    WIREGUARD,
    Mechanism,
)

from .tunnel import FIELD, Choice, Underlay, check_addresses, common_mtu, number

PORT: Final = 51820
OWN_PORTS: Final = range(61000, 65536)
"""Where the ports of single connections are chosen from; the uplink lets tunnels in there.

They lie above those the kernel gives to sockets that name none (net.ipv4.ip_local_port_range, 32768 to 60999 unless
set): a resolver, or a wireguard-go that has just started, would have one now and then.
"""

SRC_OWN_PORT: Final = "src_own_port"
DST_OWN_PORT: Final = "dst_own_port"


class Wireguard:
    """``Tunnel`` WIREGUARD."""

    type = WIREGUARD
    payload = IP
    needs_key = True
    needs_port = True

    def overhead(self, ip: str) -> int:
        """IP, UDP 8, type 4, index 4, counter 8, tag 16."""
        return 80 if ":" in ip else 60

    def offer(self, choice: Choice, underlay: Underlay) -> Mechanism:
        """Our address, key, MTU and both ports."""
        return Mechanism(
            REMOTE,
            WIREGUARD,
            {
                SRC_IP: underlay.ip,
                SRC_PORT: str(PORT),
                SRC_PUBLIC_KEY: choice.public_key,
                SRC_OWN_PORT: str(choice.port),
                MTU: str(underlay.mtu - self.overhead(underlay.ip)),
            },
        )

    def accept(self, offered: Mechanism, choice: Choice, underlay: Underlay) -> Mechanism:
        """Our side added, the smaller MTU."""
        parameters = {DST_IP: underlay.ip, DST_PORT: str(PORT), DST_PUBLIC_KEY: choice.public_key}
        if _own_port(offered, SRC_OWN_PORT):
            parameters[DST_OWN_PORT] = str(choice.port)
        mtu = common_mtu(offered, underlay.mtu - self.overhead(underlay.ip))
        agreed = offered.without(DST_OWN_PORT).having(**parameters).having(**{MTU: str(mtu)})
        check_addresses(agreed)
        number(agreed, SRC_PORT, PORT, 1, 0xFFFF)
        _key(agreed, SRC_PUBLIC_KEY)
        return agreed

    def answering_end(self, agreed: Mechanism, choice: Choice) -> WireguardEnd:
        """Local is *dst*."""
        source, destination = check_addresses(agreed)
        return _end(
            agreed, choice, (destination, DST_OWN_PORT), (source, SRC_PORT, SRC_OWN_PORT, SRC_PUBLIC_KEY)
        )

    def requesting_end(self, agreed: Mechanism, choice: Choice) -> WireguardEnd:
        """Local is *src*."""
        source, destination = check_addresses(agreed)
        return _end(
            agreed, choice, (source, SRC_OWN_PORT), (destination, DST_PORT, DST_OWN_PORT, DST_PUBLIC_KEY)
        )


def _end(
    agreed: Mechanism, choice: Choice, local: tuple[str, str], remote: tuple[str, str, str, str]
) -> WireguardEnd:
    ip, own_port = local
    remote_ip, shared_port, remote_own_port, public_key = remote
    ours, theirs = _own_port(agreed, own_port), _own_port(agreed, remote_own_port)
    key = _key(agreed, public_key)
    if ours and theirs:
        return WireguardEnd(ip, remote_ip, choice.port, theirs, choice.private_key, key)
    port = number(agreed, shared_port, PORT, 1, 0xFFFF)
    return WireguardEnd(ip, remote_ip, PORT, port, choice.private_key, key, shared=True)


def _own_port(mechanism: Mechanism, key: str) -> int:
    return number(mechanism, key, 0, 0, 0xFFFF)


def _key(mechanism: Mechanism, name: str) -> str:
    text = mechanism.get(name)
    try:
        is_key = len(b64decode(text, validate=True)) == 32
    except ValueError:
        is_key = False
    if not is_key:
        raise invalid(f"{FIELD}.{name}", "standard base64 of a public key of 32 bytes", text)
    return text
