"""Clients and endpoints that come and go in one lab, round after round; each round is like a day in small.

A round has bursts of connections from one client of this process (many of them, cheaply), a client process of each
make that connects, carries packets and ends politely, in every third round by SIGKILL, so that its connection must
expire, and in every second one an endpoint that goes before its client does.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab.demonstration import flows_of
from perf.control.driver import Driver, Operation, Sample, driver
from perf.looping import Calls
from perf.plan import PLACES
from perf.soak.labs import Lab

BURSTS: Final = 4
AT_ONCE: Final = 5
MORTAL: Final = {"NSM_MAX_TOKEN_LIFETIME": "20s", "NSM_REQUEST_TIMEOUT": "8s"}
"""Of clients that are killed: what they had expires within half a minute."""
PROBES: Final = 20
GUESTS: Final = 6
"""So many rounds later a client of the same name comes again: what a killed one had is gone by then. A Go client would
find it at its manager and go on with it, whatever service it is to ask for."""


UPSTREAMS: Final = re.compile(
    "failed to send a file .* file already closed|find server failed to send a response", re.DOTALL
)
"""What a Go component says when it met a fault of its own: a descriptor it closed before it was sent (endpoint,
manager), an answer to a cancelled Find (registry, manager). A client asks again, so does this one."""


def is_upstreams(error: str) -> bool:
    """Whether a refusal tells of a fault of a Go component."""
    return UPSTREAMS.search(error) is not None


@dataclass
class Churn:
    """What was done in one lab and what failed; ``upstreams``: faults of Go components, each tried again."""

    lab: Lab
    calls: Calls
    stopping: Event
    round: int = 0
    made: int = 0
    failures: list[str] = field(default_factory=list)
    upstreams: list[str] = field(default_factory=list)
    _told: int = 0

    @property
    def _where(self) -> str:
        return f"{self.lab.name}, round {self.round}"

    def new_failures(self) -> list[str]:
        """Those since the last call."""
        new = self.failures[self._told :]
        self._told += len(new)
        return new

    def until(self, deadline: float) -> None:
        """Rounds until ``deadline`` (``time.monotonic``) or ``stopping``, whole ones only."""
        while time.monotonic() < deadline and not self.stopping.is_set():
            self._round()

    def _round(self) -> None:
        place = [*PLACES][self.round % len(PLACES)]
        make, other = ("ours", "Go") if self.round // len(PLACES) % 2 == 0 else ("Go", "ours")
        self._tried(partial(self._bursts, self.lab.service(place, make)))
        for client_make in (make, other):
            is_killed = self.round % 3 == 2
            self._tried(partial(self._visit, client_make, other, place, is_killed=is_killed))
        if self.round % 2:
            self._tried(partial(self._leave, make, other, place))
        self.round += 1

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except LabError as error:
            self.failures.append(f"{self._where}: {error}")

    def _bursts(self, service: str) -> None:
        """Requests, refreshes and Closes of some connections at once, several times."""
        name = "many"
        stage = self.lab.stage
        space = stage.workload(name)

        async def work() -> list[Sample]:
            done: list[Sample] = []
            async with driver(stage.near, [name], service, space) as calls:
                for burst in range(BURSTS):
                    numbers = range(burst * AT_ONCE, (burst + 1) * AT_ONCE)
                    requested = await self._asked(calls, calls.request, numbers)
                    self.made += sum(not one.error for one in requested)
                    done += requested
                    done += await self._asked(calls, calls.refresh, tuple(calls.connections))
                    done += await self._asked(calls, calls.close, tuple(calls.connections))
            return done

        try:
            self._count(self.calls.run(work()))
        finally:
            stage.remove(name)

    async def _asked(self, calls: Driver, operation: Operation, numbers: Sequence[int]) -> list[Sample]:
        """All at once; those that met a fault of a Go component once more."""
        done = await calls.at_once(operation, numbers)
        again = [one for one in done if is_upstreams(one.error)]
        self.upstreams += [f"{self._where}: {one.error}" for one in again]
        once_more = await calls.at_once(operation, [one.number for one in again])
        return [*(one for one in done if one not in again), *once_more]

    def _count(self, samples: Sequence[Sample]) -> None:
        self.failures += [f"{self._where}: {one.error}" for one in samples if one.error]

    def _visit(self, make: str, server_make: str, place: str, *, is_killed: bool) -> None:
        """A client process connects, carries packets, ends."""
        name = f"guest-{make.lower()}-{self.round % GUESTS}"
        server = f"{server_make.lower()}-{place}"
        stage = self.lab.stage
        try:
            env = MORTAL if is_killed else {}
            addresses = self.lab.client(name, make, self.lab.service(place, server_make), **env)
            self.made += 1
            flows = flows_of(addresses, 4343)
            with stage.probes(flows, name, server, rate=PROBES, seconds=1.0) as running:
                lost = sum(verdict.lost for verdict in running.finish())
            if lost:
                raise LabError(f"{name} lost {lost} probes to {server}")
            if is_killed:
                stage.kill(name)
        finally:
            self._remove(name)

    def _leave(self, make: str, other: str, place: str) -> None:
        """An endpoint comes, a client connects to it, the endpoint goes first."""
        server, client = f"passing-{make.lower()}", f"left-{other.lower()}"
        try:
            self.lab.endpoint(server, make, place)
            self.lab.client(client, other, f"{server}-service", **MORTAL)
            self.made += 1
        finally:
            self._remove(server)
            self._remove(client)

    def _remove(self, name: str) -> None:
        stage = self.lab.stage
        if name in stage.added:
            stage.remove(name)
