"""What is done to the control plane in one place: one by one, at once, traced, at growing numbers of connections."""

import asyncio
from collections.abc import Iterator, Sequence
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

CHUNK: Final = 20
"""Connections asked for at once while filling up."""


class Work:
    """One place of one column."""

    def __init__(self, stage: Stage, calls: Driver, cell: Figure, effort: Effort) -> None:
        """``cell``: an empty figure of this place and column."""
        self._stage = stage
        self._calls = calls
        self._cell = cell
        self._effort = effort
        self._next = 0
        self._operations: dict[str, Operation] = {
            "Request": calls.request,
            "refresh": calls.refresh,
            "Close": calls.close,
        }

    async def one_by_one(self) -> list[Figure]:
        """Each operation after the other, over new connections, when nothing else is there."""
        await self._cycle(2)  # warm: channels dialled, modules loaded
        cycle = await self._cycle(self._effort.calls)
        return [of_samples(self._cell, work, samples) for work, samples in cycle]

    async def unhurried(self) -> list[Figure]:
        """Requests with a pause before each."""
        numbers = self._numbers(self._effort.calls)
        samples = []
        for number in numbers:
            await asyncio.sleep(PAUSE_S)
            samples.append(await self._calls.request(number))
        there = [number for number in numbers if number in self._calls.connections]
        await self._calls.one_by_one(self._calls.close, there)
        return [of_samples(self._cell, "Request after a pause", samples)]

    async def at_once(self) -> list[Figure]:
        """Each operation for many connections together."""
        count = self._effort.at_once
        numbers = self._numbers(count)
        figures = []
        for work, operation in self._operations.items():
            there = [n for n in numbers if work == "Request" or n in self._calls.connections]
            samples = await self._calls.at_once(operation, there)
            figures.append(of_samples(self._cell, f"{count} at once: {work}", samples))
        return figures

    async def traced(self) -> list[Figure]:
        """What each operation costs at the client's forwarder."""
        count = self._effort.traced
        numbers = self._numbers(count)
        pid = self._stage.pid(f"{self._stage.near.name}/forwarder")
        figures = []
        for work, operation in self._operations.items():
            await _quiet(pid)
            with counted(pid) as counts:
                await self._calls.one_by_one(operation, numbers)
                await asyncio.sleep(SETTLE_S)
            figures += [
                replace(self._cell, work=f"{work}: {name}", value=value, spread=second, samples=count)
                for name, (value, second) in counts.each(count).items()
            ]
        return figures

    async def levels(self, levels: Sequence[int]) -> list[Figure]:
        """Latency and memory with ever more connections alive, up to the last level; all are closed afterwards."""
        figures = []
        filled: list[int] = []
        before = self._memory()
        for level in levels:
            filled += await self._fill(level - len(filled))
            for work, samples in await self._cycle(min(10, self._effort.calls)):
                figures.append(of_samples(self._cell, f"{work}, {level} live", samples))
        for daemon, now in self._memory().items():
            each = 1024 * (now - before[daemon]) / max(1, len(filled))
            figures.append(replace(self._cell, work=f"{daemon}, per connection", unit="KiB", value=each))
        await self._drain()
        return figures

    async def _cycle(self, count: int) -> list[tuple[str, list[Sample]]]:
        """Request, refresh and Close, one after the other, of ``count`` new connections."""
        numbers = self._numbers(count)
        done = []
        for work, operation in self._operations.items():
            there = [n for n in numbers if work == "Request" or n in self._calls.connections]
            done.append((work, await self._calls.one_by_one(operation, there)))
        return done

    async def _fill(self, count: int) -> list[int]:
        numbers = self._numbers(count)
        for at in range(0, count, CHUNK):
            await self._calls.at_once(self._calls.request, numbers[at : at + CHUNK])
        return [number for number in numbers if number in self._calls.connections]

    async def _drain(self) -> None:
        numbers = tuple(self._calls.connections)
        for at in range(0, len(numbers), CHUNK):
            await self._calls.at_once(self._calls.close, numbers[at : at + CHUNK])

    def _memory(self) -> dict[str, float]:
        """Resident MiB of the daemons of the client's node."""
        return {
            daemon: resident(self._stage.pid(f"{self._stage.near.name}/{daemon}"))
            for daemon in ("forwarder", "manager")
        }

    def _numbers(self, count: int) -> range:
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
