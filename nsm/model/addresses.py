"""Addresses as text, parsed once: every refresh brings the same ones again, and parsing is dear in Python.

The same names and errors as in ``ipaddress``, for text only; what they return cannot be changed, so it can be shared.
"""

import ipaddress
from functools import lru_cache
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KEPT: Final = 8192
"""Results kept of each kind, about 0.5 kB each; texts that are no address are not."""


@lru_cache(KEPT)
def ip_address(text: str) -> Address:
    """One address; ValueError."""
    return ipaddress.ip_address(text)


@lru_cache(KEPT)
def ip_interface(text: str) -> Interface:
    """An address with the length of its prefix; ValueError."""
    return ipaddress.ip_interface(text)


@lru_cache(KEPT)
def ip_network(text: str, strict: bool = True) -> Network:
    """A prefix; ValueError, for host bits too if ``strict``."""
    return ipaddress.ip_network(text, strict)
