"""Whole worlds to measure: all of Go's, all of ours, or mixed, each in a lab of its own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from nsmctl.lab import world
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import Process
from nsmctl.lab.progress import Progress
from nsmctl.lab.state import State
from nsmctl.lab.topology import Topology
from tests.interop import govpp
from tests.interop.casts import Cast, CastWorld, Mixed

GO_STATE: Final = Path("/var/lib/networkservicemesh")
"""The Go manager makes this folder on its first Request, wherever it runs."""


class ReleasedVpp(CastWorld):
    """The VPP under a Go forwarder as it is released, without ``fair_epoll.so``."""

    def launch(self, daemon: Daemon) -> tuple[Process, int]:
        return super().launch(replace(daemon, env={}) if isinstance(daemon, govpp.VppDaemon) else daemon)


@contextmanager
def played(topology: Topology, cast: Cast, kind: type[CastWorld] = CastWorld) -> Iterator[Mixed]:
    """A lab with that cast for as long as the context lasts. LabError if it cannot be built; its logs stay then."""
    had_state = GO_STATE.exists()
    built = kind(State(topology), cast)
    built.record(built.state)
    is_up = False
    try:
        built.build(Progress(quiet=True), {})
        is_up = True
        yield Mixed(built)
    finally:
        world.down(topology.name, Progress(quiet=True), keep_logs=not is_up)
        if not had_state:
            shutil.rmtree(GO_STATE, ignore_errors=True)
