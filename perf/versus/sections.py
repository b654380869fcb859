"""What is measured, in pieces of a few minutes each.

``one-by-one`` and ``packets-…`` have all chains up at once and take turns between them, so that what else the machine
does meanwhile meets all of them; ``at-once-…`` gives every burst a lab of its own, for what a burst leaves behind in
one chain shall not be in the way of the next.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from nsmctl.errors import LabError
from nsmctl.lab.progress import Progress
from perf.control.driver import Driver, Operation, Sample, driver
from perf.dataplane import packets
from perf.figures import pressure, resident
from perf.looping import Calls
from perf.plan import PLACES
from perf.versus.chains import Chain, Ends, Running, running
from perf.versus.measured import Measured, of_samples, pooled

MTUS: Final = (1500, 9000)
SIZES: Final = (5, 20, 50)
SECTIONS: Final = {
    "one-by-one": ("one-by-one", "", MTUS[0]),
    **{f"at-once-{place}": ("at-once", place, MTUS[0]) for place in PLACES},
    **{f"packets-{mtu}": ("packets", "", mtu) for mtu in MTUS},
}
"""Kind, place and MTU of each by its name; the cable's MTU is what both makes take for a connection."""
DAEMONS: Final = ("forwarder", "manager", "registry")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much of each."""

    rounds: int = 3
    calls: int = 10
    pings: int = 100
    seconds: int = 3
    burst_calls: int = 20


FULL: Final = Effort()
QUICK: Final = Effort(rounds=1, calls=5, pings=50, seconds=2, burst_calls=1)


@dataclass(frozen=True, slots=True)
class Party:
    """One chain at one place, with a driver of its own."""

    running: Running
    place: str
    ends: Ends
    calls: Driver

    @property
    def name(self) -> str:
        """``Go wireguard``."""
        return f"{self.chain} {self.place}"

    @property
    def chain(self) -> str:
        """The chain's name."""
        return self.running.chain.name

    def operations(self) -> dict[str, Operation]:
        """By the name of the call."""
        return {"Request": self.calls.request, "refresh": self.calls.refresh, "Close": self.calls.close}

    def attempt(self, work: str, unit: str, measure: Callable[[], tuple[float, ...]]) -> Measured:
        """What ``measure`` gives; one failed attempt when it raises LabError."""
        empty = Measured(self.place, work, self.chain, unit, ())
        try:
            return replace(empty, values=measure(), pressure=pressure())
        except LabError as error:
            return replace(empty, failed=1, reason=str(error), pressure=pressure())

    async def calls_of(
        self,
        numbers: Sequence[int],
        many: Callable[[Operation, Sequence[int]], Awaitable[list[Sample]]],
        prefix: str = "",
    ) -> list[Measured]:
        """Request, refresh and Close of connections with these numbers, each as ``many`` of the driver makes them."""
        found = []
        for work, operation in self.operations().items():
            there = [n for n in numbers if work == "Request" or n in self.calls.connections]
            samples = await many(operation, there)
            empty = Measured(self.place, f"{prefix}{work}", self.chain, "ms", (), pressure=pressure())
            found.append(of_samples(samples, empty, asked=len(numbers)))
        return found


class Versus:
    """Measures sections on ``chains``."""

    def __init__(self, chains: Sequence[Chain], effort: Effort, progress: Progress, calls: Calls) -> None:
        self._chains = tuple(chains)
        self._steady = tuple(chain for chain in chains if not chain.only_at_once)
        self._effort = effort
        self._progress = progress
        self._calls = calls
        self._number = 0

    def section(self, name: str) -> list[Measured]:
        """All figures of one section. LabError if a lab cannot be built."""
        kind, place, mtu = SECTIONS[name]
        return pooled(self._at_once(place) if kind == "at-once" else self._in_turns(kind, mtu))

    def _in_turns(self, kind: str, mtu: int) -> list[Measured]:
        """Every chain on two nodes, an endpoint at every place of each."""
        with ExitStack() as labs:
            up = []
            for chain in self._steady:
                with self._progress.step(f"a lab of {chain.name} with MTU {mtu}"):
                    one = labs.enter_context(running(chain, size=2, mtu=mtu))
                    up += [(one, place, one.ends(place)) for place in PLACES]
            return self._calls.run(self._together(up, kind, mtu))

    def _at_once(self, place: str) -> list[Measured]:
        """5, 20 and 50 of each call together at one place."""
        found = []
        for turn, count in enumerate(SIZES):
            for chain in _turned(self._chains, turn):
                with running(chain, size=1 if place == "local" else 2, mtu=MTUS[0]) as up:
                    ends = up.ends(place)
                    with self._progress.step(f"{count} at once: {chain.name} {place}"):
                        found += self._calls.run(self._alone(up, place, ends, count))
        return found

    async def _alone(self, up: Running, place: str, ends: Ends, count: int) -> list[Measured]:
        async with AsyncExitStack() as drivers:
            return await self._burst(await _party(drivers, up, place, ends), count)

    async def _together(self, up: Sequence[tuple[Running, str, Ends]], kind: str, mtu: int) -> list[Measured]:
        async with AsyncExitStack() as drivers:
            ordered = [one for place in PLACES for one in up if one[1] == place]
            parties = [await _party(drivers, *one) for one in ordered]
            return await (self._one_by_one(parties) if kind == "one-by-one" else self._packets(parties, mtu))

    async def _one_by_one(self, parties: Sequence[Party]) -> list[Measured]:
        """Request, refresh, Close one after the other, and the daemons' memory."""
        found = []
        for party in parties:
            await self._cycle(party, 2)  # warm: channels dialled, modules loaded
        for turn in range(self._effort.rounds):
            for party in _turned(parties, turn):
                with self._progress.step(f"one by one, round {turn + 1}: {party.name}"):
                    found += await self._cycle(party, self._effort.calls)
        for party in parties[: len(self._steady)]:
            found += memory(party)
        return found

    async def _packets(self, parties: Sequence[Party], mtu: int) -> list[Measured]:
        """TCP and round trips over one connection of each party."""
        found = []
        connected = []
        for party in parties:
            sample = await party.calls.request(0)
            if sample.error:
                raise LabError(f"{party.name}: {sample.error}")
            connected.append((party, party.calls.flows()[0].endpoint))
        for turn in range(self._effort.rounds):
            for party, address in _turned(connected, turn):
                with self._progress.step(f"packets at MTU {mtu}, round {turn + 1}: {party.name}"):
                    found += await asyncio.to_thread(self._loaded, party, address, mtu)
        return found

    async def _burst(self, party: Party, count: int) -> list[Measured]:
        """Rounds of one burst, until one was not whole: what it leaves behind is not the next one's business."""
        await self._cycle(party, 2)
        found: list[Measured] = []
        for _ in range(max(1, self._effort.burst_calls // count)):
            calls = party.calls
            found += await party.calls_of(self._numbers(count), calls.at_once, f"{count} at once: ")
            if any(one.failed for one in found):
                break
        return found

    async def _cycle(self, party: Party, count: int) -> list[Measured]:
        """Request, refresh and Close, one after the other, of ``count`` new connections."""
        return await party.calls_of(self._numbers(count), party.calls.one_by_one)

    def _loaded(self, party: Party, address: str, mtu: int) -> list[Measured]:
        """Round trips, then one TCP stream."""
        ends, effort = party.ends, self._effort

        def pings() -> tuple[float, ...]:
            return packets.round_trips(client=ends.client_space, address=address, count=effort.pings)

        def stream() -> tuple[float, ...]:
            spaces = {"client": ends.client_space, "endpoint": ends.server_space}
            return (packets.tcp(**spaces, address=address, seconds=effort.seconds),)

        return [
            party.attempt(f"ping, MTU {mtu}", "ms", pings),
            party.attempt(f"TCP, MTU {mtu}", "Gbit/s", stream),
        ]

    def _numbers(self, count: int) -> range:
        """Numbers of connections not used yet."""
        first = self._number
        self._number += count
        return range(first, self._number)


def memory(party: Party) -> Iterator[Measured]:
    """Resident memory of the daemons of the client's node."""
    processes = party.running.stage.world.state.processes
    for daemon in DAEMONS:
        value = resident(processes[f"{party.running.near.name}/{daemon}"].pid)
        yield Measured("local", f"{daemon}, resident", party.chain, "MiB", (value,), pressure=pressure())


async def _party(drivers: AsyncExitStack, up: Running, place: str, ends: Ends) -> Party:
    calls = driver(up.near, [ends.client], ends.service, ends.client_space)
    return Party(up, place, ends, await drivers.enter_async_context(calls))


def _turned(items: Sequence[_T], turn: int) -> list[_T]:
    """Everybody in turn, and each time another one first."""
    start = turn % max(1, len(items))
    return [*items[start:], *items[:start]]
