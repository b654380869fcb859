"""The URL other nodes reach this manager by; it stands in for those of our endpoints in the registry.

The text must be the same in registrations and queries, for a registry finds by substring (reference §3.10, trap 33).
"""

import fcntl
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

Address = IPv4Address | IPv6Address

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
_TCP: Final = "tcp://"
_UNSPECIFIED: Final = frozenset({"", "0.0.0.0", "[::]"})  # noqa: S104 - recognised, not bound


def public_url(listening: Sequence[str], addresses: Callable[[], Iterable[Address]] | None = None) -> str:
    """The first ``tcp://`` URL, else the first; an empty host becomes the first usable address of the machine.

    ``listening`` has ports resolved. IPv4 is preferred. With no address but loopback, loopback it is.
    """
    url = next((candidate for candidate in listening if candidate.startswith(_TCP)), listening[0])
    host, _, port = url.removeprefix(_TCP).rpartition(":")
    if not url.startswith(_TCP) or host not in _UNSPECIFIED:
        return url
    usable = [
        address
        for address in (addresses or interface_addresses)()
        if not (address.is_loopback or address.is_link_local or address.is_unspecified)
    ]
    usable.sort(key=lambda address: address.version)
    chosen = usable[0] if usable else IPv4Address("127.0.0.1")
    return f"{_TCP}[{chosen}]:{port}" if chosen.version == 6 else f"{_TCP}{chosen}:{port}"


def interface_addresses() -> list[Address]:
    """The primary IPv4 address of each interface in order of its index, then every IPv6 address."""
    found: list[Address] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
            except OSError:  # EADDRNOTAVAIL: no IPv4 address there
                continue
            found.append(IPv4Address(answer[20:24]))
    table = Path("/proc/net/if_inet6")
    lines = table.read_text(encoding="ascii").splitlines() if table.exists() else []
    found += [ip_address(bytes.fromhex(line.split()[0])) for line in lines]
    return found
