"""Labs in which Go components stand in the place of ours.

``lab``: our registry, managers and forwarders on each dataplane; Go clients and endpoints are the workloads.
``go_lab``: the Go registry and Go managers with our forwarders; workloads are ours or Go's.
``stage``: any cast, on VPP.
Around every test an independent census is taken: leftovers fail it. The end of every log goes with a failure.
"""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import census, world
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import tail
from nsmctl.lab.state import State
from nsmctl.lab.topology import Topology
from tests.scenes import deep_profile, settled
from tests.suites import vpp_binary

from . import casts, peers, summary
from .attested import SpireWorld, as_operator
from .casts import Cast, CastWorld, Mixed

# Without the Go components these cases must not count as skipped VPP cases, which fail a run.
DATAPLANES = [
    pytest.param(name, marks=() if peers.missing(*peers.CONTROL_PLANE) else (getattr(pytest.mark, name),))
    for name in ("linux", "vpp")
]
ON_LINUX = pytest.mark.parametrize("our_lab", DATAPLANES[:1], indirect=True)
GO_ON_LINUX = pytest.mark.parametrize("foreign_lab", DATAPLANES[:1], indirect=True)
"""For cases whose dataplane does not matter."""
GO_STATE = Path("/var/lib/networkservicemesh")
"""The Go manager makes this folder on its first Request, wherever it runs."""


def pytest_configure(config: pytest.Config) -> None:
    """The lines about the peers at the end."""
    config.pluginmanager.register(summary.Peers(), "nsm-peers")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test with the marker ``quick``, all others take minutes."""
    for item in items:
        quick = item.get_closest_marker("quick")
        if quick is not None and isinstance(item, pytest.Function) and item.callspec.id not in quick.args:
            item.add_marker(pytest.mark.minutes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the logs of the lab to a failure."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for scene in {
            id(value): value for value in item.funcargs.values() if isinstance(value, Mixed)
        }.values():
            for name, process in scene.world.state.processes.items():
                report.sections.append((f"log of {name}", tail(process, lines=40)))
    return report


def build(dataplane: str, name: str, cast: Cast) -> Mixed:
    """A lab of its own; skips where there can be none."""
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: labs of the test suite need root")
    if dataplane == "vpp" and vpp_binary() is None:
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    topology = Topology(name, 2, dataplane)
    forwarder_env = {"NSM_VPP_PROFILE": str(deep_profile(topology))} if dataplane == "vpp" else {}
    kind = SpireWorld if cast.on_spire else CastWorld
    built = kind(State(topology), cast)
    built.record(built.state)
    try:
        built.build(Progress(quiet=True), forwarder_env)
    except BaseException as error:
        world.down(name, Progress(quiet=True), keep_logs=True)
        if isinstance(error, LabError):
            pytest.fail(f"the lab could not be built: {error}")
        raise
    return Mixed(built, forwarder_env)


def for_session(dataplane: str, prefix: str, cast: Cast) -> Iterator[Mixed]:
    """A lab for the session; nothing of it is left at the end."""
    name = f"{prefix}{dataplane}{os.getpid()}"
    had_state = GO_STATE.exists()
    scene = build(dataplane, name, cast)
    yield scene
    world.down(name, Progress(quiet=True))
    if not had_state:
        shutil.rmtree(GO_STATE, ignore_errors=True)
    topology = scene.world.topology
    left = census.take(mark=scene.world.mark, directories=[topology.directory]).facts
    assert not left["process"]
    assert not left[f"file {topology.directory}"]
    assert not [fact for facts in left.values() for fact in facts if name in fact]


def for_one_test(scene: Mixed) -> Iterator[Mixed]:
    """A lab for one test; nothing of what the test adds may stay with a forwarder of ours."""
    before, marks = scene.census(), scene.marks()
    try:
        yield scene
    finally:
        scene.mend()
        scene.clean()
    assert settled(lambda: scene.of_ours(before), lambda left: not left) == [], "leftovers"
    assert scene.tracebacks(marks) == []


@pytest.fixture(scope="session", params=DATAPLANES)
def our_lab(request: pytest.FixtureRequest) -> Iterator[Mixed]:
    """Our control plane; nothing of it is left at the end."""
    yield from for_session(request.param, "io", casts.OURS)


@pytest.fixture
def lab(our_lab: Mixed) -> Iterator[Mixed]:
    """Our control plane for one test; what the test adds is removed, and nothing of it may stay."""
    yield from for_one_test(our_lab)


@pytest.fixture(scope="session", params=DATAPLANES)
def foreign_lab(request: pytest.FixtureRequest) -> Iterator[Mixed]:
    """The Go control plane; nothing of it is left at the end."""
    yield from for_session(request.param, "ig", casts.GO_CONTROL_PLANE)


@pytest.fixture
def go_lab(foreign_lab: Mixed) -> Iterator[Mixed]:
    """The Go control plane for one test; what the test adds is removed, and nothing of it may stay."""
    yield from for_one_test(foreign_lab)


@pytest.fixture(scope="session")
def theatre(request: pytest.FixtureRequest) -> Iterator[Mixed]:
    """A cast's lab, on VPP; nothing of it is left at the end."""
    yield from for_session("vpp", "ic", request.param)


@pytest.fixture
def stage(theatre: Mixed) -> Iterator[Mixed]:
    """A cast's lab for one test; nothing of what the test adds may stay with a forwarder of ours."""
    with as_operator(theatre.world):
        yield from for_one_test(theatre)
