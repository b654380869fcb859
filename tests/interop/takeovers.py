"""``python -m tests.interop``: the table of live nodes that changed their forwarder, and how long nothing arrived."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nsmctl.lab.probes import Verdict

from .course import PLACES
from .rows import Row, Rows

OUTAGES: Final = "takeover"
"""The property of a test's report: milliseconds without packets, by what was changed for what."""
_CHANGES: Final = ("Go's for ours", "ours for Go's")


def outage_ms(verdicts: Sequence[Verdict]) -> float:
    """The longest silence of any address family, either way."""
    return max(way.silence_ms for verdict in verdicts for way in (verdict.forward, verdict.back))


@dataclass
class Takeover(Row):
    """One row."""

    way: str
    place: str

    @property
    def cells(self) -> Sequence[str]:
        """Seconds, or what became of the case."""
        place = PLACES[self.place]
        cells = [f"{self.shown[change] / 1000:.1f} s" if change in self.shown else "-" for change in _CHANGES]
        if self.outcome != "ok":
            cells[min(len(self.shown), 1)] = self.outcome
        return (self.way, place.payload, str(place.nodes), *cells)


class Takeovers(Rows[Takeover]):
    """Every case that changes a forwarder."""

    head = ("node was changed", "payload", "nodes", *_CHANGES)
    shown = OUTAGES
    counted = "taken over"

    def row(self, parameters: Mapping[str, object]) -> Takeover | None:
        """Of a way in a place."""
        way, place = parameters.get("way"), parameters.get("where")
        return Takeover(way, place) if isinstance(way, str) and isinstance(place, str) else None
