"""The same calls with ever more connections alive, and the memory that those take.

The connections that are there meanwhile (the crowd) are those of other workloads, or of the very two that are measured:
what the second adds is the kernel's work in a namespace that holds so many interfaces.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from nsmctl.errors import LabError
from perf.control.driver import Driver
from perf.control.work import Work
from perf.figures import Figure, of_samples, resident
from perf.stage import Stage

CALLS: Final = 20
"""Of each operation at each level: fewer than elsewhere, for there are many levels."""

CHUNK: Final = 20
"""Connections of the crowd asked for, or closed, at once."""


async def at_levels(work: Work, crowd: Driver, levels: Sequence[int], name: str) -> list[Figure]:
    """Request, refresh and Close at each number of live connections; ``name`` says where those are, for the row.

    The crowd of the last level stays. LabError when one of the crowd cannot be had.
    """
    figures = []
    for level in levels:
        await _fill(work, crowd, level)
        for operation, samples in await work.cycle(min(CALLS, work.effort.calls)):
            figures.append(of_samples(work.cell, f"{operation}, {level} {name}", samples))
    return figures


async def drain(crowd: Driver) -> None:
    """Close all."""
    numbers = tuple(crowd.connections)
    for at in range(0, len(numbers), CHUNK):
        await crowd.at_once(crowd.close, numbers[at : at + CHUNK])


def memory(stage: Stage) -> dict[str, float]:
    """Resident MiB of the daemons of the client's node."""
    return {daemon: resident(stage.pid(f"{stage.near.name}/{daemon}")) for daemon in ("forwarder", "manager")}


def per_connection(
    cell: Figure, before: Mapping[str, float], after: Mapping[str, float], connections: int
) -> Iterator[Figure]:
    """Memory that grew while so many connections came, each one's share."""
    for daemon, now in after.items():
        each = 1024 * (now - before[daemon]) / max(1, connections)
        yield replace(cell, work=f"{daemon}, per connection", unit="KiB", value=each)


async def _fill(work: Work, crowd: Driver, level: int) -> None:
    numbers = work.numbers(level - len(crowd.connections))
    for at in range(0, len(numbers), CHUNK):
        for sample in await crowd.at_once(crowd.request, numbers[at : at + CHUNK]):
            if sample.error:
                raise LabError(f"no {level} connections at one time: {sample.error}")
