"""``python -m tests.interop``: the table of who plays which role, payload and nodes, and what each case showed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest

from .casts import Cast
from .course import PLACES, STEPS

SHOWN: Final = "interop"
"""The property of a test's report that holds what its course showed, by step."""
_HEAD: Final = ("role", "played by", "identities", "payload", "nodes", *STEPS)


@dataclass
class Case:
    """One row."""

    cast: Cast
    place: str
    shown: Mapping[str, str] = field(default_factory=dict)
    outcome: str = "not run"

    @property
    def row(self) -> tuple[str, ...]:
        """The cells; what failed shows at the first step that has nothing to show."""
        other = "ours" if self.cast.make == "Go" else "Go"
        who = ("all", "Go") if not self.cast.swapped else (", ".join(self.cast.swapped), other)
        place = PLACES[self.place]
        cells = [self.shown.get(step, "") for step in STEPS]
        if "" in cells:
            cells[cells.index("")] = "FAILED" if self.outcome == "failed" else self.outcome
        identities = "SPIRE" if self.cast.on_spire else "ours"
        return (*who, identities, place.payload, str(place.nodes), *(cell or "-" for cell in cells))


class Matrix:
    """Collects the cases of a run."""

    def __init__(self) -> None:
        self.cases: dict[str, Case] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every case of a cast in a place is a row, run or not."""
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                cast, place = (item.callspec.params.get(name) for name in ("theatre", "place"))
                if isinstance(cast, Cast) and isinstance(place, str):
                    self.cases[item.nodeid] = Case(cast, place)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What became of a row."""
        case = self.cases.get(report.nodeid)
        if case is None:
            return
        for name, value in report.user_properties:
            if name == SHOWN and isinstance(value, dict):
                case.shown = value
        if report.failed:
            case.outcome = "failed"
        elif report.when == "call" and report.passed:
            case.outcome = "ok"

    def lines(self) -> Iterable[str]:
        """The table, and the count as the last line."""
        rows = [_HEAD, *(case.row for case in self.cases.values())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        outcomes = [case.outcome for case in self.cases.values()]
        ok, idle = outcomes.count("ok"), outcomes.count("not run")
        yield f"interop: {ok} of {len(outcomes)} ok, {idle} not run"
