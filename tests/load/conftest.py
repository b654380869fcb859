"""Labs to load: one per dataplane and session; the VPP one for hundreds has the expedited opt-in.

``NSM_LOAD=full`` runs every case; without it the short selection of ``cases.py``.
"""

import os
import shutil
from collections.abc import Iterator

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import census
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Topology
from perf.stage import Stage, lab, left


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The lab a case needs, ``linux``, ``vpp`` or ``vpp-expedited``; nothing of it is left at the end."""
    kind: str = request.param
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
        with lab(topology, Progress(quiet=True), env) as built:
            yield built
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
