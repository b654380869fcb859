"""A measured figure, and how many samples become one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perf.control.driver import Sample


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the table. ``column`` is the dataplane (and its options); ``spread`` the p99 or the worst of few."""

    place: str
    work: str
    column: str
    unit: str
    value: float
    spread: float | None = None
    samples: int = 1
    failed: int = 0
    pressure: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Its row."""
        return self.place, self.work


def of_samples(cell: Figure, work: str, samples: Sequence[Sample]) -> Figure:
    """Median and p99 in milliseconds of the calls that succeeded; place and column are those of ``cell``."""
    times = sorted(1000 * each.seconds for each in samples if not each.error)
    failed = len(samples) - len(times)
    middle = times[len(times) // 2] if times else 0.0
    late = times[min(len(times) - 1, len(times) * 99 // 100)] if times else None
    return Figure(cell.place, work, cell.column, "ms", middle, late, len(samples), failed, pressure())


def pressure() -> float:
    """Share of the last 10 s in which somebody waited for a processor, in percent; 0 where it is not told."""
    try:
        line = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except OSError:
        return 0.0
    return float(line.split("avg10=")[1].split()[0])


def resident(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
