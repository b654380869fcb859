"""What is done to the control plane in one place: one by one, with pauses, at once, traced."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from perf.control.counts import Counts, counted
from perf.control.driver import Driver, Operation, Sample
from perf.figures import Figure, of_samples, pressure, resident
from perf.plan import Effort
from perf.stage import Stage

SETTLE_S: Final = 1.0
"""Tracing goes on for so long after the last answer: what is left for the background counts too."""

QUIET_TRIES: Final = 20

PAUSE_S: Final = 0.5
"""What the forwarder makes ready for the next Request is ready by then."""


class Work:
    """One place of one column."""

    def __init__(self, stage: Stage, calls: Driver, cell: Figure, effort: Effort) -> None:
        """``cell``: an empty figure of this place and column."""
        self._stage = stage
        self._calls = calls
        self.cell = cell
        self.effort = effort
        self._next = 0
        self._operations: dict[str, Operation] = {
            "Request": calls.request,
            "refresh": calls.refresh,
            "Close": calls.close,
        }

    async def one_by_one(self) -> list[Figure]:
        """Each operation after the other, over new connections, when nothing else is there."""
        await self.cycle(2)  # warm: channels dialled, modules loaded
        cycle = await self.cycle(self.effort.calls)
        return [of_samples(self.cell, work, samples) for work, samples in cycle]

    async def unhurried(self) -> list[Figure]:
        """Requests with a pause before each."""
        numbers = self.numbers(self.effort.calls)
        samples = []
        for number in numbers:
            await asyncio.sleep(PAUSE_S)
            samples.append(await self._calls.request(number))
        there = [number for number in numbers if number in self._calls.connections]
        await self._calls.one_by_one(self._calls.close, there)
        return [of_samples(self.cell, "Request after a pause", samples)]

    async def at_once(self) -> list[Figure]:
        """Each operation for many connections together."""
        count = self.effort.at_once
        numbers = self.numbers(count)
        figures = []
        for work, operation in self._operations.items():
            there = [n for n in numbers if work == "Request" or n in self._calls.connections]
            samples = await self._calls.at_once(operation, there)
            figures.append(of_samples(self.cell, f"{count} at once: {work}", samples))
        return figures

    async def traced(self) -> list[Figure]:
        """What each operation costs at the client's forwarder."""
        count = self.effort.traced
        numbers = self.numbers(count)
        pid = self._stage.pid(f"{self._stage.near.name}/forwarder")
        figures = []
        for work, operation in self._operations.items():
            await _quiet(pid)
            with counted(pid) as counts:
                await self._calls.one_by_one(operation, numbers)
                await asyncio.sleep(SETTLE_S)
            figures += [
                replace(self.cell, work=f"{work}: {name}", value=value, spread=second, samples=count)
                for name, (value, second) in counts.each(count).items()
            ]
        return figures

    async def cycle(self, count: int) -> list[tuple[str, list[Sample]]]:
        """Request, refresh and Close, one after the other, of ``count`` new connections."""
        numbers = self.numbers(count)
        done = []
        for work, operation in self._operations.items():
            there = [n for n in numbers if work == "Request" or n in self._calls.connections]
            done.append((work, await self._calls.one_by_one(operation, there)))
        return done

    def numbers(self, count: int) -> range:
        """Numbers not used yet."""
        first = self._next
        self._next += count
        return range(first, self._next)


async def _quiet(pid: int) -> None:
    """Wait until a process has nothing left to do of what was asked before."""
    for _ in range(QUIET_TRIES):
        with counted(pid) as counts:
            await asyncio.sleep(SETTLE_S)
        if counts == Counts():
            return


def idle(stage: Stage, column: str) -> Iterator[Figure]:
    """Resident memory of the daemons before there is a connection."""
    for daemon in ("forwarder", "manager", "registry"):
        value = resident(stage.pid(f"{stage.near.name}/{daemon}"))
        yield Figure("local", f"{daemon}, resident", column, "MiB", value, pressure=pressure())
