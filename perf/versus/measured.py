"""What was measured: the values of one work on one chain, and what they come to. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from perf.control.driver import Sample


@dataclass(frozen=True, slots=True)
class Measured:
    """``values`` of the attempts that succeeded, in ``unit``; ``failed`` others, the first of them for ``reason``.

    ``pressure``: share of the time in which somebody waited for a processor, in percent.
    """

    place: str
    work: str
    chain: str
    unit: str
    values: tuple[float, ...]
    failed: int = 0
    reason: str = ""
    pressure: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Its row."""
        return self.place, self.work

    @property
    def attempts(self) -> int:
        """How many there were."""
        return len(self.values) + self.failed

    def at(self, percent: int) -> float:
        """The value that so many percent of the others do not exceed. ValueError without values."""
        if not self.values:
            raise ValueError(f"{self.place} {self.work} on {self.chain}: no value")
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

    def json(self) -> dict[str, Any]:
        """For the file; ``of_json`` reads it."""
        return {**asdict(self), "values": [round(value, 4) for value in self.values]}


def of_json(content: dict[str, Any]) -> Measured:
    """What ``json`` gave. TypeError or KeyError for something else."""
    return Measured(**{**content, "values": tuple(content["values"])})


def of_samples(samples: Sequence[Sample], empty: Measured, *, asked: int) -> Measured:
    """``empty`` with the calls in milliseconds. Of ``asked`` calls those that were not made count as failed."""
    times = tuple(1000 * each.seconds for each in samples if not each.error)
    reason = next((each.error for each in samples if each.error), "")
    return replace(empty, values=times, failed=asked - len(times), reason=reason)


def pooled(rounds: Iterable[Measured]) -> list[Measured]:
    """Rounds of the same work on the same chain as one, in the order of their first."""
    found: dict[tuple[str, str, str], Measured] = {}
    for one in rounds:
        key = (*one.key, one.chain)
        before = found.get(key)
        found[key] = one if before is None else _together(before, one)
    return list(found.values())


def _together(first: Measured, second: Measured) -> Measured:
    return replace(
        first,
        values=first.values + second.values,
        failed=first.failed + second.failed,
        reason=first.reason or second.reason,
        pressure=max(first.pressure, second.pressure),
    )
