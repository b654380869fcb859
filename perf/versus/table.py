"""The comparison for people: on a terminal, or as Markdown for a document."""

from collections.abc import Iterator, Sequence
from statistics import median

from rich import box
from rich.table import Table

from perf.versus.measured import Measured
from perf.versus.record import Piece, Record


def table(record: Record, sections: Sequence[str]) -> Table:
    """One row a place and work, one column a chain."""
    measured = record.measured(sections)
    shown = Table(title=title(record), caption=caption(record, sections), box=box.SIMPLE)
    shown.title_justify = shown.caption_justify = "left"
    columns = chains(measured)
    for name in ("place", "work"):
        shown.add_column(name)
    for name in columns:
        shown.add_column(name, justify="right")
    for row in rows(measured, columns):
        shown.add_row(*row)
    return shown


def markdown(record: Record, sections: Sequence[str]) -> str:
    """The same for a document."""
    measured = record.measured(sections)
    columns = chains(measured)
    lines = [
        ("place", "work", *columns),
        ("---", "---", *("---:" for _ in columns)),
        *rows(measured, columns),
    ]
    body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{title(record)}\n\n{body}\n\n{caption(record, sections)}\n"


def chains(measured: Sequence[Measured]) -> list[str]:
    """Go's chains, then ours, otherwise in the order they appear."""
    return sorted(dict.fromkeys(one.chain for one in measured), key=lambda name: not name.startswith("Go"))


def rows(measured: Sequence[Measured], columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Place, work with its unit, and a cell for each chain, empty where nothing was measured."""
    cells = {(one.key, one.chain): one for one in measured}
    for key in dict.fromkeys(one.key for one in measured):
        found = [cells.get((key, column)) for column in columns]
        unit = next(one.unit for one in found if one is not None)
        yield (key[0], f"{key[1]} ({unit})", *("" if one is None else cell(one) for one in found))


def cell(one: Measured) -> str:
    """``median / p90 / p99`` of ten and more, ``median (least to most)`` of few; and how many failed, if any."""
    if not one.values:
        return f"0 of {one.attempts}"
    if len(one.values) == 1:
        text = number(one.values[0])
    elif one.unit == "Gbit/s":
        text = f"{number(one.at(50))} ({number(min(one.values))} to {number(max(one.values))})"
    else:
        text = " / ".join(number(one.at(percent)) for percent in (50, 90, 99))
    return text if not one.failed else f"{text} ({len(one.values)} of {one.attempts})"


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def title(record: Record) -> str:
    """What it was measured on; the pieces may be of several days and commits."""
    pieces = list(record.pieces.values())
    if not pieces:
        return "nothing measured yet"
    last = max(pieces, key=lambda piece: piece.at)
    machine = last.machine
    days = sorted({piece.at[:10] for piece in pieces})
    commits = ", ".join(dict.fromkeys(_commit(piece) for piece in pieces))
    return (
        f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['vpp']}, "
        f"commit {commits}, {' to '.join(dict.fromkeys((days[0], days[-1])))}"
    )


def caption(record: Record, sections: Sequence[str]) -> str:
    """How to read it, and how busy the machine was."""
    loads = (
        f"{name} {median(one.pressure for one in record.pieces[name].measured):.0f} %"
        for name in sections
        if name in record.pieces
    )
    return (
        "Times: median / p90 / p99 of what succeeded; TCP: median (least to most). So much of the time somebody waited "
        f"for a processor meanwhile: {', '.join(loads)}; above 20 % read ratios of one section, not times."
    )


def _commit(piece: Piece) -> str:
    return f"{piece.machine['commit']}{' with changes' if piece.machine['changed'] else ''}"
