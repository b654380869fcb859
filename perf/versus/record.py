"""The file of a comparison: each section with when and on what it was measured; a newer run replaces its section."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perf.versus.measured import Measured, of_json

FILE: Final = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True, slots=True)
class Piece:
    """One section's run. ``at``: when it ended, ISO 8601; ``machine`` as ``perf.machine`` describes it."""

    at: str
    machine: Mapping[str, Any]
    measured: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Pieces by the name of their section."""

    pieces: Mapping[str, Piece] = field(default_factory=dict)

    def having(self, section: str, piece: Piece) -> "Record":
        """With this run of a section in place of an older one; chains that were not measured now keep theirs."""
        measured = {one.chain for one in piece.measured}
        before = self.pieces.get(section)
        kept = [one for one in before.measured if one.chain not in measured] if before else []
        whole = Piece(piece.at, piece.machine, (*kept, *piece.measured))
        return Record({**self.pieces, section: whole})

    def measured(self, sections: Sequence[str]) -> list[Measured]:
        """All figures of these sections, in their order."""
        return [one for name in sections if name in self.pieces for one in self.pieces[name].measured]

    def json(self) -> dict[str, Any]:
        """For the file; ``of_json`` reads it."""
        return {
            name: {
                "at": piece.at,
                "machine": dict(piece.machine),
                "measured": [each.json() for each in piece.measured],
            }
            for name, piece in self.pieces.items()
        }


def load(file: Path) -> Record:
    """The record of earlier runs; empty if there is none. ValueError for a file that is no record."""
    if not file.exists():
        return Record()
    try:
        content = json.loads(file.read_text())
        return Record(
            {
                name: Piece(piece["at"], piece["machine"], tuple(map(of_json, piece["measured"])))
                for name, piece in content.items()
            }
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no record of a comparison: {error}") from error


def save(record: Record, file: Path) -> None:
    """Write it, so that a reader finds the old or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(
        json.dumps(record.json(), indent=None, separators=(",", ":")).replace('},{"place"', '},\n{"place"')
        + "\n"
    )
    new.replace(file)
