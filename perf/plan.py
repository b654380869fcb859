"""What a run measures: the columns of the table and how thorough it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PLACES: Final = {"local": "IP", "wireguard": "IP", "vxlan": "ETHERNET"}
"""Where the endpoint is and what its service carries: on the client's node, or on the other one."""


@dataclass(frozen=True, slots=True)
class Column:
    """A dataplane with its options. ``places``: those it is measured at; ``levels``: live connections at which."""

    name: str
    dataplane: str
    env: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = tuple(PLACES)
    levels: tuple[int, ...] = (1, 50, 200)
    carries_packets: bool = True


COLUMNS: Final = {
    "linux": Column("linux", "linux", levels=(1, 50, 200, 500)),
    "vpp": Column("vpp", "vpp"),
    "vpp-pool": Column("vpp-pool", "vpp", {"NSM_WARM_POOL": "2"}),
    "vpp-expedited": Column("vpp-expedited", "vpp", {"NSM_EXPEDITED": "true"}),
    "fake": Column("fake", "vpp", places=("local",), levels=(1, 50, 200, 500), carries_packets=False),
}


@dataclass(frozen=True, slots=True)
class Effort:
    """How many of each."""

    calls: int = 30
    at_once: int = 50
    traced: int = 5
    most: int = 500
    seconds: int = 5
    pings: int = 400
    mtus: tuple[int, ...] = (1500, 9000)

    def levels(self, column: Column) -> tuple[int, ...]:
        """The numbers of live connections to measure at."""
        return tuple(level for level in column.levels if level <= self.most)


FULL: Final = Effort()
QUICK: Final = Effort(calls=10, at_once=20, traced=2, most=50, seconds=2, pings=100, mtus=(1500,))
