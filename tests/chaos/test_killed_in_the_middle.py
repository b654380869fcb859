"""SIGKILL of every process in the middle of a Request: after the restart and the tokens' expiry nothing is left."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsmctl.lab import daemons, world
from nsmctl.lab.census import take
from nsmctl.lab.processes import kill, marked
from nsmctl.lab.progress import Progress
from tests.scenes import DATAPLANES, Scene, build, carried, links, settled

LIFETIME = "10s"
"""Of every token in this lab: what nobody refreshes is gone after it."""

EXPIRY_S = 60.0
"""Patience until what the dead have left has gone."""


@pytest.fixture(scope="module", params=DATAPLANES)
def brief(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A lab whose tokens live for seconds; after ``lab down`` the machine is as before."""
    name = f"brf{request.param[0]}{os.getpid()}"
    before = take()
    patch = pytest.MonkeyPatch()
    patch.setenv("NSM_MAX_TOKEN_LIFETIME", LIFETIME)
    try:
        scene = build(request.param, name)
        yield scene
        world.down(name, Progress(quiet=True))
    finally:
        patch.undo()
    assert settled(lambda: before.difference(take()), lambda left: not left) == ()


def kill_everything(lab: Scene) -> None:
    """Every daemon and workload at once, but not the identities, and not what carries packets.

    VPP finishes what it was asked for while the workloads' namespaces are still there: 26.06 keeps the memory, and by
    it the socket, of a link's rings when the link goes while it makes them (docs/vpp-notes.md).
    """
    for name, process in lab.world.state.processes.items():
        if not name.endswith("/identity"):
            os.kill(process.pid, 9)
    for name, process in lab.world.state.processes.items():
        if not name.endswith("/identity"):
            kill(process)
    assert settled(lambda: callers_of_vpp(lab), lambda found: not found) == []


def callers_of_vpp(lab: Scene) -> list[str]:
    """Connections to the API of the lab's VPPs: those of dead agents stay until VPP has done what they asked for."""
    found: list[str] = []
    for node in lab.world.topology.nodes:
        socket = f"{node.vpp_directory}/api.sock"
        for process in marked("", node.vpp_directory):
            sockets = Path(f"/proc/{process.pid}/net/unix").read_text().splitlines()
            found += [each for each in sockets if each.endswith(f" {socket}")][1:]  # the first one listens
    return found


def restart(lab: Scene) -> None:
    """Workloads stay dead and their namespaces go; the mesh comes back."""
    lab.clean()
    registry = daemons.registry(lab.world.topology).name
    lab.start(registry)
    nodes = [node.name for node in lab.world.topology.nodes]
    lab.start(*(f"{node}/manager" for node in nodes))
    lab.start(*(f"{node}/forwarder" for node in nodes))


@pytest.mark.parametrize(
    ("moment", "payload"), [("asked", "IP"), ("half made", "IP"), ("half made", "ETHERNET")]
)
def test_nothing_is_left_of_a_request_that_everybody_died_of(brief: Scene, moment: str, payload: str) -> None:
    lab = brief
    lab.mend()
    lab.clean()
    before = lab.census()
    lab.endpoint("server", payload=payload)
    urls = [f"kernel://server-service/nsm-{number}" for number in range(1, 5)]
    far = f"{lab.far.name}/forwarder"
    if moment == "asked":
        with lab.stopped(far), lab.trying("caller", *urls):
            assert settled(lambda: lab.is_asked(far), bool)
            kill_everything(lab)
    else:
        with lab.trying("caller", *urls):
            deadline = time.monotonic() + 30
            while not links(lab.netns("caller")) and time.monotonic() < deadline:
                pass
            kill_everything(lab)
    restart(lab)
    left = settled(lambda: before.difference(lab.census()), lambda found: not found, EXPIRY_S)
    assert left == ()
    lab.endpoint("server", payload=payload)
    (connection,) = lab.client("caller", "server-service")
    carried(lab.probe(connection, "caller", "server", rate=200, seconds=0.2))
    lab.clean()
    assert lab.left_since(before) == ()
