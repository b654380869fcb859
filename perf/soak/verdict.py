"""Whether something grows, judged from checkpoints at which nothing but the lasting connections was there. Pure.

The first sixth is warm-up. What leaks comes with each connection, so it has to show in either half of the rest, from
the first third of that half to its last; what happens once (a table that doubles, an arena more) shows in one only.
What is counted (descriptors, tasks, threads) may not grow at all, and is growth also if it rises once for good, clear
of all that was seen before. Else what stays raises both the least of a third and its median, for a checkpoint may meet
a connection that is being closed, another a stream that is being opened anew.
What has a size (objects, Python's blocks of memory, the C library's heap) may grow by a share and by a little for each
connection: caches fill. Memory as the kernel counts it has the pages that are free between what is held, too: Python
gives back an arena (1 MiB) only when all of it is free, so its share is larger.
Pools of threads have a limit of their own, which they reach when as much work as that happens to meet; they are shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import inf
from statistics import median
from typing import Final

from perf.soak.held import Held

LEAST: Final = 6
"""Fewer checkpoints say nothing about growth."""
SHARES: Final[Mapping[str, float]] = {
    "memory (KiB)": 0.02,
    "heap (KiB)": 0.01,
    "blocks": 0.005,
    "objects": 0.005,
}
EACH: Final[Mapping[str, float]] = {"memory (KiB)": 0.25, "heap (KiB)": 0.1, "blocks": 0.5, "objects": 0.2}
"""What sizes may grow by in half a run: a share of what there was, and so many for each connection made in between."""
Choice = Callable[[Sequence[float], Sequence[float]], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """``made``: connections made since the start; ``held`` by process; ``problems``: what was not as it must be."""

    seconds: float
    made: int
    held: Mapping[str, Held]
    problems: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Growth:
    """One measure of one process in the first and the last third; ``each``: slope per 1,000 connections made.

    ``halves``: what it grew by in each half, of which ``limit`` is tolerated; ``is_leak``: it is a leak.
    """

    process: str
    measure: str
    first: float
    last: float
    each: float
    halves: tuple[float, float]
    limit: float
    is_leak: bool

    def __str__(self) -> str:
        """``n1/forwarder: socket 14 to 17``."""
        return f"{self.process}: {self.measure} {self.first:,.0f} to {self.last:,.0f}"


def least(looks: Sequence[Mapping[str, Held]]) -> dict[str, Held]:
    """Several looks at the same processes as one: of what is counted the least, of what has a size the last.

    A lasting connection may be refreshed at any moment, with a call and descriptors of its own, but not at all of them.
    """
    found = {}
    for process, last in looks[-1].items():
        seen = [look[process] for look in looks if process in look]
        found[process] = replace(
            last,
            fds={kind: min(one.fds.get(kind, 0) for one in seen) for kind in last.fds},
            tasks={name: min(one.tasks.get(name, 0) for one in seen) for name in last.tasks},
            threads=min(one.threads for one in seen),
            pools={name: min(one.pools.get(name, 0) for one in seen) for name in last.pools},
        )
    return found


def growths(checkpoints: Sequence[Checkpoint]) -> list[Growth]:
    """Every measure of every process that is there at all checkpoints; empty if there are too few."""
    settled = checkpoints[len(checkpoints) // 6 :]
    if len(settled) < LEAST:
        return []
    return [
        growth
        for process in settled[0].held
        if all(process in one.held for one in settled)
        for growth in _of_process(process, settled)
    ]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes of all pairs (Theil and Sen): a single odd checkpoint does not move it."""
    slopes = [(y - v) / (x - u) for (u, v), (x, y) in combinations(points, 2) if x != u]
    return median(slopes) if slopes else 0.0


def medians(first: Sequence[float], last: Sequence[float]) -> tuple[float, float]:
    """Of both thirds."""
    return median(first), median(last)


def least_risen(first: Sequence[float], last: Sequence[float]) -> tuple[float, float]:
    """The least of both thirds or their medians, whichever has risen less."""
    pairs = ((min(first), min(last)), medians(first, last))
    return min(pairs, key=lambda pair: pair[1] - pair[0])


def counted(held: Held) -> Mapping[str, float]:
    """What may not grow at all."""
    return {
        **{f"fd {kind}": number for kind, number in held.fds.items()},
        **{f"task {name}": number for name, number in held.tasks.items()},
        "threads": held.threads,
    }


def sized(held: Held) -> Mapping[str, float]:
    """What may grow a little."""
    return {
        "memory (KiB)": held.anonymous_kib,
        "heap (KiB)": held.heap_kib,
        "blocks": held.blocks,
        "objects": held.objects,
    }


def bounded(held: Held) -> Mapping[str, float]:
    """What cannot grow without end."""
    return {f"threads of {pool}": number for pool, number in held.pools.items()}


def _of_process(process: str, settled: Sequence[Checkpoint]) -> Iterator[Growth]:
    made = [float(one.made) for one in settled]
    for measures, choose, otherwise in (
        (counted, least_risen, 0.0),
        (sized, medians, 0.0),
        (bounded, least_risen, inf),
    ):
        series = [measures(one.held[process]) for one in settled]
        for measure in sorted({name for one in series for name in one}):
            values = [one.get(measure, 0.0) for one in series]
            thirds = _thirds(values)
            first, last = choose(*thirds)
            steep = 1000 * slope([*zip(made, values, strict=True)])
            earlier, later = (_risen(half, choose) for half in _halves(values))
            between = min(_risen(half, medians) for half in _halves(made))
            limit = SHARES.get(measure, otherwise) * max(first, 1.0) + EACH.get(measure, 0.0) * between
            is_clear = measures is counted and min(thirds[1]) > max(thirds[0])
            is_leak = is_clear or min(last - first, earlier, later) > limit
            yield Growth(process, measure, first, last, steep, (earlier, later), limit, is_leak)


def _risen(values: Sequence[float], choose: Choice) -> float:
    first, last = choose(*_thirds(values))
    return last - first


def _thirds(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The first and the last."""
    third = len(values) // 3
    return values[:third], values[-third:]


def _halves(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    half = len(values) // 2
    return values[:half], values[-half:]
