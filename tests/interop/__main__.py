"""Run the interop suite, what takes minutes included, and print its tables: ``make interop``."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import pytest


class Table(Protocol):
    """Collects the cases of a run."""

    def lines(self) -> Iterable[str]:
        """What to print."""


class Tables:
    """Registered before anything of the suite is imported: pytest rewrites the assertions of what it imports first."""

    def __init__(self) -> None:
        self.all: list[Table] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        """The conftests are read by now."""
        from .matrix import Matrix
        from .takeovers import Takeovers

        self.all = [Takeovers(), Matrix()]  # the last line is the matrix's
        for table in self.all:
            config.pluginmanager.register(table)


def main() -> int:
    """Exit code of pytest; arguments are pytest's."""
    os.environ["NSM_SLOW"] = "1"
    tables = Tables()
    code = pytest.main([str(Path(__file__).parent), *sys.argv[1:]], plugins=[tables])
    for table in tables.all:
        sys.stdout.write("\n" + "".join(f"{line}\n" for line in table.lines()))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
