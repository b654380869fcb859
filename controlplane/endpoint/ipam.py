"""Point-to-point addresses of an endpoint's connections (reference §3.14). No I/O, no clock.

From each group of prefixes a connection gets one pair: the lowest free address is the endpoint's (*dst*), the
next one the client's (*src*), both of the same prefix, each with a host route at the other end. A lease
belongs to our own connection id and stays over refreshes; after a restart it is recovered from a refresh.

No address of our prefixes is ever in two contexts: what a Request carries is taken into its lease while it is
free, and removed when another connection holds it or an excluded prefix covers it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.endpoint.ip_context import Offer, excluded_networks, written
from controlplane.endpoint.prefixes import Address, AddressSet, Network, lowest
from nsm.model.context import IpContext
from nsm.model.errors import Code, NsmError


@dataclass(frozen=True, slots=True)
class Pair:
    """The two addresses of one group."""

    src: Address
    dst: Address


@dataclass(frozen=True, slots=True)
class Lease:
    """What one connection holds: a pair per group, and further addresses of ours it brought along."""

    pairs: tuple[Pair, ...]
    others: tuple[Address, ...] = ()

    def addresses(self) -> Iterator[Address]:
        """Every address held."""
        for pair in self.pairs:
            yield pair.src
            yield pair.dst
        yield from self.others


class PointToPointIpam:
    """The pools of one endpoint; ``strict`` also removes addresses that are outside our prefixes."""

    def __init__(self, groups: Sequence[Sequence[Network]], *, strict: bool = False) -> None:
        self._groups = tuple(tuple(group) for group in groups)
        self._strict = strict
        self._ours = AddressSet(network for group in self._groups for network in group)
        self._used = AddressSet()
        self._leases: dict[str, Lease] = {}
        self._before: dict[str, Lease | None] = {}
        self._answers: dict[str, IpContext] = {}

    @property
    def leases(self) -> Mapping[str, Lease]:
        """What each connection holds."""
        return self._leases

    def request(self, connection: str, context: IpContext) -> IpContext:
        """The context with this connection's addresses and routes in it.

        RESOURCE_EXHAUSTED names the pools without a free pair, INVALID_ARGUMENT the malformed field: nothing
        has changed then. Until ``confirm`` or the next Request, ``rollback`` leads back to before this call.
        """
        self.confirm(connection)
        if self._answers.get(connection) == context:  # a refresh brings back what it was given
            return context
        excluded = AddressSet(excluded_networks(context.excluded_prefixes))
        offered = Offer.of(context, self._ours, strict=self._strict)
        old = self._leases.get(connection)
        self._mark(old, used=False)  # ours to choose again; held until the new choice is confirmed
        try:
            lease = _Draft(self._groups, self._used, excluded).lease(old, offered)
        finally:
            self._mark(old, used=True)
        self._mark(lease, used=True)
        self._before[connection] = old
        self._leases[connection] = lease
        pairs = [(pair.src, pair.dst) for pair in lease.pairs]
        answer = written(offered.kept(pairs, lease.others, self._ours), pairs)
        self._answers[connection] = answer
        return answer

    def confirm(self, connection: str) -> None:
        """The last Request of this connection succeeded: give back what it replaced."""
        if connection in self._before:
            self._give_back(self._before.pop(connection), self._leases.get(connection))

    def rollback(self, connection: str) -> None:
        """The last Request of this connection failed: as if it had not been made."""
        if connection not in self._before:
            return
        self._answers.pop(connection, None)
        before, failed = self._before.pop(connection), self._leases.pop(connection, None)
        if before:
            self._leases[connection] = before
        self._give_back(failed, before)

    def release(self, connection: str) -> None:
        """The connection is gone; unknown ones are none of our business."""
        self.confirm(connection)
        self._answers.pop(connection, None)
        self._give_back(self._leases.pop(connection, None), None)

    def install(self, connection: str, lease: Lease) -> bool:
        """Take over a lease from before a restart; False = an address of it is no longer ours, or in use."""
        addresses = tuple(lease.addresses())
        fits = len(lease.pairs) == len(self._groups) and all(
            any(pair.src in network and pair.dst in network for network in group)
            for pair, group in zip(lease.pairs, self._groups, strict=False)
        )
        if connection in self._leases or not fits or len(set(addresses)) != len(addresses):
            return False
        if any(address not in self._ours or address in self._used for address in addresses):
            return False
        self._mark(lease, used=True)
        self._leases[connection] = lease
        return True

    def _mark(self, lease: Lease | None, *, used: bool) -> None:
        for address in lease.addresses() if lease else ():
            if used:
                self._used.add(address)
            else:
                self._used.discard(address)

    def _give_back(self, lease: Lease | None, kept: Lease | None) -> None:
        still = set(kept.addresses()) if kept else set()
        for address in lease.addresses() if lease else ():
            if address not in still:
                self._used.discard(address)


class _Draft:
    """One Request's choice of addresses, made without touching the pools."""

    def __init__(
        self, groups: tuple[tuple[Network, ...], ...], used: AddressSet, excluded: AddressSet
    ) -> None:
        self._groups = groups
        self._used = used
        self._excluded = excluded
        self._taken = AddressSet()

    def lease(self, old: Lease | None, offered: Offer) -> Lease:
        """A pair for each group: the one held, else one the Request brings, else the lowest free."""
        held = old.pairs if old else ()
        pairs: list[Pair | None] = [self._take(pair) if self._both(pair) else None for pair in held]
        pairs += [None] * (len(self._groups) - len(pairs))
        given_up = {address for pair in held if pair not in pairs for address in (pair.src, pair.dst)}
        for place, group in enumerate(self._groups):
            pairs[place] = pairs[place] or self._recovered(group, offered)
        chosen = tuple(pair or self._new(group) for pair, group in zip(pairs, self._groups, strict=True))
        others = []
        for address in (*offered.src, *offered.dst):
            if self._may(address) and address not in given_up:
                self._taken.add(address)
                others.append(address)
        return Lease(chosen, tuple(others))

    def _recovered(self, group: tuple[Network, ...], offered: Offer) -> Pair | None:
        for network in group:
            dst = next((a for a in offered.dst if a in network and self._may(a)), None)
            src = next((a for a in offered.src if a in network and a != dst and self._may(a)), None)
            if src is not None and dst is not None:
                return self._take(Pair(src, dst))
        return None

    def _new(self, group: tuple[Network, ...]) -> Pair:
        for network in group:
            dst = lowest(network, self._used, self._excluded, self._taken)
            if dst is None:
                continue
            src = lowest(network, self._used, self._excluded, self._taken, above=dst)
            if src is not None:
                return self._take(Pair(src, dst))
        pools = ", ".join(str(network) for network in group) or "an empty group"
        raise NsmError(Code.RESOURCE_EXHAUSTED, f"no pair of free, not excluded addresses is left in {pools}")

    def _may(self, address: Address) -> bool:
        """Whether this connection may have the address: held by no other, not excluded, not chosen yet."""
        return address not in self._used and address not in self._excluded and address not in self._taken

    def _both(self, pair: Pair) -> bool:
        return self._may(pair.src) and self._may(pair.dst)

    def _take(self, pair: Pair) -> Pair:
        self._taken.add(pair.src)
        self._taken.add(pair.dst)
        return pair
