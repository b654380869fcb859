"""``docs/traps.md`` is complete and true: every trap is there once, and what it names exists."""

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.traps.answers import ANSWERS

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = 67


class Row(NamedTuple):
    """One trap as the document has it."""

    number: int
    modules: frozenset[str]
    tests: frozenset[str]


def named(cell: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", cell))


def rows() -> list[Row]:
    found = []
    for line in (ROOT / "docs" / "traps.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].isdigit():
            number, _, _, modules, tests = cells
            found.append(Row(int(number), named(modules), named(tests)))
    return found


def test_every_trap_is_there_once_and_in_order() -> None:
    assert [row.number for row in rows()] == list(range(1, COUNT + 1))


def test_every_row_names_a_module_that_exists() -> None:
    for row in rows():
        assert row.modules, f"trap {row.number} names no module"
        missing = [name for name in row.modules if not (ROOT / name).is_file()]
        assert missing == [], f"trap {row.number}"


def test_rows_and_answers_say_the_same() -> None:
    modules, tests = defaultdict(set), defaultdict(set)
    for answer in ANSWERS:
        modules[answer.trap].add(answer.module)
        tests[answer.trap].add(answer.test)
    for row in rows():
        assert row.tests == tests[row.number], f"trap {row.number}"
        assert not row.tests or row.modules == modules[row.number], f"trap {row.number}"


@pytest.mark.parametrize("test", sorted({answer.test for answer in ANSWERS}))
def test_every_test_that_is_named_exists(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in defined if name else any(each.startswith("test_") for each in defined)
