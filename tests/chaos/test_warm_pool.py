"""The agent or its VPP dies with ready pairs, or while it makes them: they are adopted or go, and Requests are served.

What there is is asked of ``ip`` and ``vppctl``. A lab of one node whose forwarder keeps ``SIZE`` pairs ready.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from nsmctl.lab import namespaces, world
from nsmctl.lab.counters import vppctl
from nsmctl.lab.demonstration import cli_of, count, flows_of
from nsmctl.lab.processes import Process, kill, marked
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Topology
from tests.scenes import Scene, build, carried, settled

pytestmark = [pytest.mark.vpp, pytest.mark.minutes]

SIZE = 4
EACH = 2
"""Pairs that a local connection takes."""

WAIT_S = 60.0
URL = "kernel://server-service/nsm-1"


@dataclass(frozen=True)
class Pairs:
    """Far ends of pairs from the pool at the node: those that wait, whole, those of connections, and VPP's on them."""

    waiting: frozenset[str]
    taken: frozenset[str]
    in_vpp: frozenset[str]
    broken: frozenset[str]

    @property
    def full(self) -> bool:
        """All that there should be, and nothing besides."""
        return len(self.waiting) == SIZE and self.in_vpp == self.waiting | self.taken and not self.broken


def pairs(lab: Scene) -> Pairs:
    """A waiting pair has both its ends at the node, a taken one only the far end."""
    there = aliases(lab)
    near = {name[3:] for name in there if name.startswith("nwp")}
    far = {name[3:] for name in there if name.startswith("nvp")}
    ready = {name[3:] for name, alias in there.items() if name.startswith("nvp") and "-pool-" in alias}
    shown = vppctl(cli_of(lab.near), "show interface").split()
    in_vpp = {word.removeprefix("host-nvp") for word in shown if word.startswith("host-nvp")}
    return Pairs(
        frozenset(ready & near), frozenset(far - near - ready), frozenset(in_vpp), frozenset(near ^ ready)
    )


def aliases(lab: Scene) -> dict[str, str]:
    """Of every link at the node."""
    with namespaces.entered(lab.near.netns):
        done = subprocess.run(["ip", "-j", "link", "show"], capture_output=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return {link["ifname"]: link.get("ifalias", "") for link in found}


def filled(lab: Scene) -> Pairs:
    """What there is when the pool has filled up."""
    found: Pairs = settled(lambda: pairs(lab), lambda now: now.full, WAIT_S)
    assert found.full, found
    return found


def vpp_of(lab: Scene) -> Process:
    (found,) = [each for each in marked("", lab.near.vpp_directory) if each.name.startswith("vpp")]
    return found


@pytest.fixture(scope="module")
def one_node() -> Iterator[Scene]:
    """After ``lab down`` the machine is as before, whatever waited in the pool."""
    name = f"wrm{os.getpid()}"
    topology = Topology(name, 1, "vpp")
    before = count(topology)
    try:
        scene = build("vpp", name, 1, NSM_WARM_POOL=str(SIZE))
        scene.endpoint("server", node=scene.near)
        scene.added.clear()  # it stays for all tests
        yield scene
        filled(scene)
    finally:
        world.down(name, Progress(quiet=True))
    assert settled(lambda: before.difference(count(topology)), lambda left: not left) == ()


@pytest.fixture
def node(one_node: Scene) -> Iterator[Scene]:
    """The pool is full before a test, and after it, when no pair but the waiting ones is left."""
    marks = one_node.marks()
    filled(one_node)
    try:
        yield one_node
    finally:
        one_node.mend()
        one_node.clean()
    left = settled(lambda: pairs(one_node), lambda now: now.full and not now.taken, WAIT_S)
    assert left.full, left
    assert not left.taken, left
    assert one_node.tracebacks(marks) == []


def early(lab: Scene, **env: str) -> dict[str, Any]:
    """A connection from before the fault. Its client leaves an agent's death alone, for packets go on."""
    (connection,) = lab.client("early", URL, env=env)
    return connection


def served(lab: Scene, name: str) -> None:
    """A new client is connected, and its probes arrive."""
    (connection,) = lab.client(name, URL)
    carried(lab.probe(connection, name, "server", rate=200, seconds=0.2))


@pytest.fixture
def forwarder(node: Scene) -> str:
    return f"{node.near.name}/forwarder"


def test_pairs_that_were_ready_are_adopted_under_traffic(node: Scene, forwarder: str) -> None:
    connection = early(node)
    before = filled(node)
    assert len(before.taken) == EACH
    with node.probes(flows_of(connection), "early", "server", rate=200) as running:
        node.kill(forwarder)
        since = node.mark_log(forwarder)
        assert pairs(node) == before
        node.start(forwarder)
        assert node.wait(forwarder, "pool.started", since=since)["adopted"] == SIZE
        carried(running.finish())
    assert filled(node) == before
    served(node, "late")
    assert pairs(node).taken < before.taken | before.waiting


def test_a_request_made_while_the_agent_is_away_is_served_from_the_adopted_pairs(
    node: Scene, forwarder: str
) -> None:
    before = filled(node)
    node.kill(forwarder)
    with node.trying("meanwhile", URL) as name:
        node.start(forwarder)
        node.wait(name, "connected")
        after = pairs(node)
        assert len(after.taken) == EACH
        assert after.taken < before.waiting
    filled(node)


@pytest.mark.parametrize("made", range(SIZE))
def test_an_agent_killed_while_it_makes_pairs_leaves_none_by_halves(
    node: Scene, forwarder: str, made: int
) -> None:
    """Killed as soon as the next link is there, that is while VPP makes its rings, or is about to."""
    node.world.end(forwarder)
    assert (
        settled(lambda: pairs(node), lambda now: not (now.waiting | now.in_vpp | now.broken)).in_vpp == set()
    )
    node.start(forwarder)
    while sum(name.startswith("nvp") for name in aliases(node)) <= made:
        pass
    node.kill(forwarder)
    node.start(forwarder)
    served(node, "at-once")
    after = filled(node)
    assert len(after.taken) in {0, EACH}  # from the pool, if it had that many by then


def test_when_vpp_dies_with_ready_pairs_they_are_made_again(node: Scene, forwarder: str) -> None:
    connection = early(node, NSM_LIVENESS_CHECK_ENABLED="false")  # so the node is who mends it
    before = filled(node)
    since = node.mark_log(forwarder)
    kill(vpp_of(node))
    node.wait(forwarder, "another VPP answers", since=since)
    served(node, "late")
    after = filled(node)
    assert not after.waiting & before.waiting
    assert before.taken < after.taken
    carried(node.probe(connection, "early", "server", rate=200, seconds=0.2))


def test_agent_and_vpp_killed_together(node: Scene, forwarder: str) -> None:
    """The client asks anew, as it cannot tell that its pairs will be used again."""
    early(node)
    before, since = filled(node), node.mark_log("early")
    with ExitStack() as stack:
        stack.callback(node.start, forwarder)
        node.kill(forwarder)
        kill(vpp_of(node))
    connection = node.wait("early", "connected", since=since)
    served(node, "late")
    after = filled(node)
    assert not after.waiting & before.waiting
    assert len(after.taken) == 2 * EACH
    carried(node.probe(connection, "early", "server", rate=200, seconds=0.2))


def test_an_agent_that_wants_no_pool_removes_the_pairs_of_the_dead_one(node: Scene, forwarder: str) -> None:
    connection = early(node)
    before = filled(node)
    node.kill(forwarder)
    node.start(forwarder, NSM_WARM_POOL="0")
    after = settled(lambda: pairs(node), lambda now: now.in_vpp == before.taken)
    assert after == Pairs(frozenset(), before.taken, before.taken, frozenset())
    carried(node.probe(connection, "early", "server", rate=200, seconds=0.2))
    served(node, "late")
    node.world.end(forwarder)
    node.start(forwarder)
