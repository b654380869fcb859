"""The table for people and the JSON for machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.table import Table

from perf.figures import Figure
from perf.reference import go

RESULTS: Final = Path(__file__).parent / "results"


def table(figures: Sequence[Figure], machine: Mapping[str, Any]) -> Table:
    """One row a place and work, one column a dataplane, the Go chain first."""
    loads = sorted(figure.pressure for figure in figures)
    columns = list(dict.fromkeys(figure.column for figure in figures))
    shown = Table(title=_title(machine), box=box.SIMPLE, title_justify="left", caption_justify="left")
    shown.caption = (
        f"while this was measured, somebody waited for a processor {loads[len(loads) // 2]:.0f} % of the time "
        f"(median; at most {loads[-1]:.0f} %): above 20 % read ratios, not times"
    )
    shown.add_column("place")
    shown.add_column("work")
    for name in ("Go, VPP", *columns):
        shown.add_column(name, justify="right")
    cells = {(figure.key, figure.column): figure for figure in figures}
    for key in dict.fromkeys(figure.key for figure in figures):
        found = [cells.get((key, column)) for column in columns]
        unit = next(figure.unit for figure in found if figure is not None)
        shown.add_row(
            key[0],
            f"{key[1]} {f'({unit})' if unit else ''}",
            go().get(key, ""),
            *(_cell(each) for each in found),
        )
    return shown


def save(figures: Sequence[Figure], machine: Mapping[str, Any], file: Path) -> None:
    """All figures, the Go chain's and the machine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    theirs = [{"place": place, "work": work, "value": value} for (place, work), value in go().items()]
    content = {"machine": dict(machine), "figures": [asdict(figure) for figure in figures], "go": theirs}
    file.write_text(json.dumps(content, indent=1) + "\n")


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.failed == figure.samples and figure.failed:
        return f"0 of {figure.samples}"
    text = _number(figure.value)
    if figure.spread is not None:
        text += f" | {_number(figure.spread)}"
    return text if not figure.failed else f"{text} ({figure.failed} failed)"


def _number(value: float) -> str:
    """Three digits that mean something."""
    if value == int(value):
        return str(int(value))
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _title(machine: Mapping[str, Any]) -> str:
    changed = " with changes" if machine["changed"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['vpp']}, "
        f"commit {machine['commit']}{changed}; times: median | p99, ping: average | worst"
    )
