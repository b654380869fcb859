"""``python -m tests.interop``: the table of live nodes that changed their forwarder, and how long nothing arrived."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import pytest

from nsmctl.lab.probes import Verdict

from .course import PLACES

OUTAGES: Final = "takeover"
"""The property of a test's report: milliseconds without packets, by what was changed for what."""
_HEAD: Final = ("node was changed", "payload", "nodes", "Go's for ours", "ours for Go's")


def outage_ms(verdicts: Sequence[Verdict]) -> float:
    """The longest silence of any address family, either way."""
    return max(way.silence_ms for verdict in verdicts for way in (verdict.forward, verdict.back))


@dataclass
class Takeover:
    """One row."""

    way: str
    place: str
    outages: dict[str, float] = field(default_factory=dict)
    outcome: str = "not run"

    @property
    def row(self) -> tuple[str, ...]:
        """The cells: seconds, or what became of the case."""
        place = PLACES[self.place]
        cells = [
            f"{self.outages[column] / 1000:.1f} s" if column in self.outages else "-" for column in _HEAD[3:]
        ]
        if self.outcome != "ok":
            cells[min(len(self.outages), 1)] = self.outcome
        return (self.way, place.payload, str(place.nodes), *cells)


class Takeovers:
    """Collects the cases of a run."""

    def __init__(self) -> None:
        self.cases: dict[str, Takeover] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every case that changes a forwarder is a row, run or not."""
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                way, place = (item.callspec.params.get(name) for name in ("way", "where"))
                if isinstance(way, str) and isinstance(place, str):
                    self.cases[item.nodeid] = Takeover(way, place)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What became of a row."""
        case = self.cases.get(report.nodeid)
        if case is None:
            return
        for name, value in report.user_properties:
            if name == OUTAGES and isinstance(value, dict):
                case.outages = value
        if report.failed:
            case.outcome = "FAILED"
        elif report.when == "call" and report.passed:
            case.outcome = "ok"

    def lines(self) -> Iterable[str]:
        """The table; the count as the last line."""
        rows = [_HEAD, *(case.row for case in self.cases.values())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        outcomes = [case.outcome for case in self.cases.values()]
        ok, idle = outcomes.count("ok"), outcomes.count("not run")
        yield f"taken over: {ok} of {len(outcomes)} ok, {idle} not run"
