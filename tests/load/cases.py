"""What is loaded: dataplane, place, how many Requests at once, from one client process or as many.

The short selection keeps ``make test`` short on two cores: 50 everywhere, on ``linux`` also 200 on one node and 20
processes. ``NSM_LOAD=full`` runs every case.
"""

import os
from dataclasses import dataclass
from typing import Final

import pytest

PAYLOADS: Final = {"local": "IP", "wireguard": "IP", "vxlan": "ETHERNET"}
DATAPLANES: Final = ("vpp", "linux")
AT_ONCE: Final = (20, 50, 200)
MANY: Final = 200
"""From here on VPP has its expedited opt-in: its rings are made one after the other, 35 ms each without."""


@dataclass(frozen=True, slots=True)
class Case:
    """One load; ``place`` is ``local``, ``wireguard`` or ``vxlan``."""

    dataplane: str
    place: str
    count: int
    processes: bool = False

    @property
    def name(self) -> str:
        """``vpp-wireguard-20-processes``."""
        return f"{self.dataplane}-{self.place}-{self.count}-{'processes' if self.processes else 'at-once'}"

    @property
    def lab(self) -> str:
        """The lab it needs."""
        expedited = self.dataplane == "vpp" and self.count >= MANY
        return "vpp-expedited" if expedited else self.dataplane

    @property
    def is_remote(self) -> bool:
        """Whether the endpoint is on the other node."""
        return self.place != "local"

    @property
    def payload(self) -> str:
        """What the endpoint's service carries."""
        return PAYLOADS[self.place]

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """Its dataplane, and the time it may take on a machine that is busy with other things."""
        dataplane = pytest.mark.vpp if self.dataplane == "vpp" else pytest.mark.linux
        return [dataplane, pytest.mark.slow, pytest.mark.timeout(420)]


def _is_short(case: Case) -> bool:
    if case.processes or case.count == MANY:
        return case.dataplane == "linux" and case.place == ("wireguard" if case.processes else "local")
    return case.count == 50


_EVERY: Final = tuple(
    Case(dataplane, place, count, processes)
    for dataplane in DATAPLANES
    for place in PAYLOADS
    for count, processes in (*((count, False) for count in AT_ONCE), (20, True))
)
_CHOSEN: Final = tuple(case for case in _EVERY if os.environ.get("NSM_LOAD") == "full" or _is_short(case))

ONE_PROCESS: Final = tuple(case for case in _CHOSEN if not case.processes)
PROCESSES: Final = tuple(case for case in _CHOSEN if case.processes)
