"""A table of cases: a row for each that was collected, and what became of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import pytest


@dataclass
class Row(ABC):
    """One case; ``shown`` is what it told by the property of its table."""

    shown: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    outcome: str = field(default="not run", kw_only=True)

    @property
    @abstractmethod
    def cells(self) -> Sequence[str]:
        """As many as the table's head has."""


RowT = TypeVar("RowT", bound=Row)


class Rows(ABC, Generic[RowT]):
    """Collects the cases of a run; a plugin of pytest."""

    head: ClassVar[Sequence[str]]
    shown: ClassVar[str]
    """The property of a test's report that holds what it showed."""
    counted: ClassVar[str]
    """What the last line begins with."""

    def __init__(self) -> None:
        self.cases: dict[str, RowT] = {}

    @abstractmethod
    def row(self, parameters: Mapping[str, object]) -> RowT | None:
        """The row of a case with these parameters; ``None``: it has none."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every case of this table is a row, run or not."""
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
                row = self.row(item.callspec.params)
                if row is not None:
                    self.cases[item.nodeid] = row

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """What became of a row."""
        case = self.cases.get(report.nodeid)
        if case is None:
            return
        for name, value in report.user_properties:
            if name == self.shown and isinstance(value, dict):
                case.shown = value
        if report.failed:
            case.outcome = "FAILED"
        elif report.when == "call" and report.passed:
            case.outcome = "ok"

    def lines(self) -> Iterable[str]:
        """The table; the count as the last line."""
        rows = [self.head, *(case.cells for case in self.cases.values())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.head))]
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        outcomes = [case.outcome for case in self.cases.values()]
        ok, idle = outcomes.count("ok"), outcomes.count("not run")
        yield f"{self.counted}: {ok} of {len(outcomes)} ok, {idle} not run"
