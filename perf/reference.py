"""The Go chain's figures to put beside ours: those of the last ``make bench-go``, by place and work."""

from collections.abc import Mapping
from functools import cache
from typing import Final

from perf.versus import record, table
from perf.versus.measured import Measured

CHAIN: Final = "Go"


@cache
def go() -> Mapping[tuple[str, str], str]:
    """``median | p99``, TCP and memory as one number, ``0 of 50``; empty where nothing was recorded."""
    pieces = record.load(record.FILE).pieces
    measured = [one for piece in pieces.values() for one in piece.measured]
    return {one.key: text(one) for one in measured if one.chain == CHAIN}


def text(one: Measured) -> str:
    """As the cells of the other columns."""
    if not one.values:
        return f"0 of {one.attempts}"
    shown = table.number(one.at(50))
    if one.unit == "ms":
        shown += f" | {table.number(one.at(99))}"
    return shown if not one.failed else f"{shown} ({one.failed} failed)"
