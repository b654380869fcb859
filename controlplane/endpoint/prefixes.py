"""Sets of IP addresses as sorted intervals, and the lowest address that none of several sets holds. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from nsm.model.addresses import ip_interface, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class IntervalSet:
    """Whole numbers as disjoint, non-adjacent intervals: every question is a bisection, O(log n).

    Neighbouring numbers merge, so a pool that hands out its lowest free address stays a handful of intervals.
    """

    __slots__ = ("_first", "_last")

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []

    def __contains__(self, number: int) -> bool:
        return self.gap(number) != number

    def __len__(self) -> int:
        """How many intervals there are."""
        return len(self._first)

    def add(self, first: int, last: int) -> None:
        """Add ``first..last``, both included."""
        left = bisect_left(self._last, first - 1)
        right = bisect_right(self._first, last + 1)
        if left < right:
            first = min(first, self._first[left])
            last = max(last, self._last[right - 1])
        self._first[left:right] = [first]
        self._last[left:right] = [last]

    def discard(self, first: int, last: int) -> None:
        """Take ``first..last`` out, as far as it is there."""
        left = bisect_left(self._last, first)
        right = bisect_right(self._first, last)
        if left >= right:
            return
        low, high = self._first[left], self._last[right - 1]
        kept = [(low, first - 1)] if low < first else []
        kept += [(last + 1, high)] if high > last else []
        self._first[left:right] = [interval[0] for interval in kept]
        self._last[left:right] = [interval[1] for interval in kept]

    def gap(self, number: int) -> int:
        """The smallest number at or above ``number`` that is not in the set."""
        place = bisect_right(self._first, number) - 1
        return self._last[place] + 1 if place >= 0 and number <= self._last[place] else number


class AddressSet:
    """Addresses of both families."""

    __slots__ = ("_v4", "_v6")

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._v4 = IntervalSet()
        self._v6 = IntervalSet()
        for network in networks:
            self.of(network.version).add(int(network[0]), int(network[-1]))

    def of(self, version: int) -> IntervalSet:
        """The addresses of IPv4 or IPv6 as numbers."""
        return self._v4 if version == 4 else self._v6

    def __contains__(self, address: Address) -> bool:
        return int(address) in self.of(address.version)

    def add(self, address: Address) -> None:
        """Add one address."""
        self.of(address.version).add(int(address), int(address))

    def discard(self, address: Address) -> None:
        """Take one address out."""
        self.of(address.version).discard(int(address), int(address))


def lowest(network: Network, *sets: AddressSet, above: Address | None = None) -> Address | None:
    """The lowest address of ``network`` (above ``above``) that is in none of the sets.

    Network and broadcast address are ordinary ones, as upstream hands them out (reference §3.14).
    """
    number = int(network[0]) if above is None else int(above) + 1
    taken = [addresses.of(network.version) for addresses in sets]
    while number <= int(network[-1]):
        candidate = number
        for intervals in taken:
            candidate = intervals.gap(candidate)
        if candidate == number:
            return network[number - int(network[0])]
        number = candidate
    return None


def parse_network(text: str) -> Network | None:
    """``address/length``, or one address; ``None`` = neither."""
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def parse_address(text: str) -> Address | None:
    """The address of ``address/length`` or of a bare address; ``None`` = neither."""
    try:
        return ip_interface(text).ip
    except ValueError:
        return None


def host(address: Address) -> str:
    """The prefix that holds only this address: ``/32`` or ``/128``."""
    return f"{address}/{address.max_prefixlen}"
