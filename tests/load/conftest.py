"""Labs to load: one per dataplane; the VPP one for hundreds has the expedited opt-in.

``NSM_LOAD=full`` runs every case; without it the short selection of ``cases.py``.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import census
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Topology
from perf.stage import Stage, lab, left


class Stages:
    """One lab at a time, for as long as cases ask for the same kind: pytest would build one for each case."""

    def __init__(self) -> None:
        self._kind = ""
        self._standing = ExitStack()
        self._stage: Stage | None = None

    def of(self, kind: str) -> Stage:
        """The lab of that kind; the one of another kind goes before it is built."""
        if self._stage is None or kind != self._kind:
            self.close()
            self._stage = self._standing.enter_context(built(kind))
            self._kind = kind
        return self._stage

    def close(self) -> None:
        """Nothing stands any more."""
        self._stage = None
        self._standing.close()


@pytest.fixture(scope="session")
def stages() -> Iterator[Stages]:
    """Closed with the last case."""
    made = Stages()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def stage(request: pytest.FixtureRequest, stages: Stages) -> Stage:
    """The lab a case needs, ``linux``, ``vpp`` or ``vpp-expedited``."""
    return stages.of(request.param)


@contextmanager
def built(kind: str) -> Iterator[Stage]:
    """A lab; nothing of it is left at the end."""
    dataplane, _, option = kind.partition("-")
    if dataplane == "vpp" and not (os.environ.get("VPP_BINARY") or shutil.which("vpp")):
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: labs of the test suite need root")
    topology = Topology(f"load{kind[0]}{option[:1]}{os.getpid()}", 2, dataplane)

    def ours(name: str) -> bool:
        return name.startswith(topology.name)

    before = census.take(names=ours)
    env = {"NSM_EXPEDITED": "true"} if option else {}
    try:
        with lab(topology, Progress(quiet=True), env) as made:
            yield made
    except LabError as error:
        pytest.fail(f"the lab could not be built: {error}")
    assert left(before, lambda: census.take(names=ours)) == ()


@pytest.fixture
def clean(stage: Stage) -> Iterator[Stage]:
    """The stage for one case: what the case adds is removed, and nothing of it may stay."""
    before = stage.census()
    try:
        yield stage
    finally:
        stage.clear()
    assert stage.left_since(before) == (), "leftovers"
