"""``python -m tests.interop``: the table of who plays which role, payload and nodes, and what each case showed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .casts import Cast
from .course import PLACES, STEPS
from .rows import Row, Rows

SHOWN: Final = "interop"
"""The property of a test's report that holds what its course showed, by step."""


@dataclass
class Case(Row):
    """One row."""

    cast: Cast
    place: str

    @property
    def cells(self) -> Sequence[str]:
        """What failed shows at the first step that has nothing to show."""
        other = "ours" if self.cast.make == "Go" else "Go"
        who = ("all", self.cast.make) if not self.cast.swapped else (", ".join(self.cast.swapped), other)
        place = PLACES[self.place]
        cells = [self.shown.get(step, "") for step in STEPS]
        if "" in cells:
            cells[cells.index("")] = self.outcome
        identities = "SPIRE" if self.cast.on_spire else "ours"
        identities = "two SPIREs" if self.cast.is_federated else identities
        return (*who, identities, place.payload, str(place.nodes), *(cell or "-" for cell in cells))


class Matrix(Rows[Case]):
    """Every case of a cast in a place."""

    head = ("role", "played by", "identities", "payload", "nodes", *STEPS)
    shown = SHOWN
    counted = "interop"

    def row(self, parameters: Mapping[str, object]) -> Case | None:
        """Of a cast in a place."""
        cast, place = parameters.get("theatre"), parameters.get("place")
        return Case(cast, place) if isinstance(cast, Cast) and isinstance(place, str) else None
