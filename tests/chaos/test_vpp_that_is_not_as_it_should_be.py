"""No VPP, another VPP, a VPP that comes late or refuses: the running agent says so, leaves nothing, and goes on.

A lab of one node whose forwarder talks to the fake VPP, which can be told what to refuse.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from forwarder_vpp.dataplane.vpp.codec import spec_of
from forwarder_vpp.dataplane.vpp.table import SPECS
from nsm.model.errors import Code
from nsm.transport.health import health
from nsmctl.lab import identities, world
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import Process
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import wait_event
from tests.fakes.caller import caller
from tests.fakes.fake_vpp.thread import ThreadedFake, fake_vpp
from tests.scenes import WAIT_S, Scene, build, links, settled

pytestmark = pytest.mark.fake

SERVICE = "ip-service"
NO_VPP = "/nonexistent/vpp"
BUG = -168
"""A refusal that nothing expects, as that of removing what is not there."""


@dataclass
class Node:
    """A node with an endpoint, a namespace that asks, and the fake VPP under the forwarder."""

    lab: Scene
    fake: ThreadedFake
    space: Path

    @property
    def manager(self) -> str:
        return self.lab.near.manager

    @property
    def forwarder(self) -> str:
        return self.lab.near.forwarder

    def held(self) -> Any:
        """All that the VPP has."""
        model = self.fake.model
        names = sorted(each.name for each in model.interfaces.values())
        return names, dict(model.l2), sorted(model.l3), sorted(map(str, model.neighbours)), dict(model.acls)


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    path = tmp_path_factory.mktemp("vpp") / "api.sock"
    name = f"fake{os.getpid()}"
    with fake_vpp(str(path)) as fake:
        env = {"NSM_DATAPLANE": "vpp", "NSM_VPP_API_SOCKET": str(path), "NSM_VPP_INIT": "NONE"}
        lab = build("linux", name, 1, **env)
        try:
            lab.endpoint("ip", node=lab.near)
            lab.endpoint("ethernet", node=lab.near, payload="ETHERNET")
            yield Node(lab, fake, lab.workload("odd"))
        finally:
            world.down(name, Progress(quiet=True))


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """Nothing of a test stays on the node or in the VPP, and no daemon has logged a traceback."""
    lab = shared_node.lab
    before, held, marks = lab.census(), shared_node.held(), lab.marks()
    yield shared_node
    lab.mend()
    assert settled(shared_node.held, lambda now: now == held) == held
    assert lab.left_since(before) == ()
    assert lab.tracebacks(marks) == []


def another(node: Node, **env: str) -> Daemon:
    """A second forwarder on the node, with a name and files of its own."""
    made = node.lab.daemon(f"{node.lab.near.name}/forwarder", NSM_NAME="another", **env)
    folder = node.lab.near.directory / "another"
    state = {"NSM_STATE_DIR": str(folder), "NSM_LISTEN_ON": f"unix://{folder}.sock"}
    return replace(made, name="another", log=folder.with_suffix(".log"), env={**made.env, **state})


def launched(node: Node, daemon: Daemon) -> tuple[Process, int]:
    return node.lab.world.launch(daemon)


def status(node: Node, process: Process) -> int:
    """Its exit status, once it has ended; it is no longer recorded."""
    _, found = os.waitpid(process.pid, 0)
    node.lab.world.end(process.name)
    return os.waitstatus_to_exitcode(found)


def failure(node: Node, **env: str) -> str:
    """Why a second forwarder could not start: exit status 1, and the reason it logged."""
    process, since = launched(node, another(node, **env))
    reason = wait_event(process, "failed", timeout=WAIT_S, since=since)["reason"]
    assert status(node, process) == 1
    return str(reason)


def test_no_vpp_where_vpp_was_asked_for(node: Node) -> None:
    reason = failure(node, NSM_DATAPLANE="vpp", NSM_VPP_API_SOCKET="", VPP_BINARY=NO_VPP)
    assert f"no executable '{NO_VPP}'" in reason
    assert "install VPP" in reason
    assert not (node.lab.near.directory / "another").exists()


def test_a_vpp_that_dies_at_once(node: Node) -> None:
    reason = failure(node, NSM_DATAPLANE="vpp", NSM_VPP_API_SOCKET="", VPP_BINARY="/bin/false")
    assert "died at start" in reason


def test_no_vpp_where_any_dataplane_will_do(node: Node) -> None:
    daemon = another(node, NSM_DATAPLANE="auto", NSM_VPP_API_SOCKET="", VPP_BINARY=NO_VPP)
    process, since = launched(node, daemon)
    chosen = wait_event(process, "dataplane.chosen", timeout=WAIT_S, since=since)
    assert chosen["dataplane"] == "linux"
    assert f"no executable '{NO_VPP}'" in chosen["why"]
    wait_event(process, "identity.waiting", timeout=WAIT_S, since=since)
    os.kill(process.pid, signal.SIGTERM)
    assert status(node, process) == 0


def test_a_vpp_of_another_release(node: Node) -> None:
    """Every difference at once, with its version."""
    changed = [
        replace(spec, crc=1) if spec.name in {"l3xc_update", "sw_interface_set_flags"} else spec
        for spec in SPECS
        if spec.name != "af_packet_create_v3"
    ]
    path = f"{node.fake.path}.other"
    with fake_vpp(path, changed):
        reason = failure(node, NSM_VPP_API_SOCKET=path)
    assert "VPP 26.06-fake has another API than 26.06" in reason
    assert "l3xc_update: expected 0xe96aabdf, is 0x00000001" in reason
    assert "sw_interface_set_flags: expected" in reason
    assert "af_packet_create_v3: expected 0xb3a809d4, is absent" in reason
    assert reason.count("expected 0x") == 3


async def test_a_vpp_that_was_named_is_waited_for(node: Node) -> None:
    lab, name = node.lab, f"{node.lab.near.name}/forwarder"
    lab.world.end(name)
    node.fake.end()
    process, since = lab.world.launch(lab.daemon(name))
    waiting = wait_event(process, "not.serving", timeout=WAIT_S, since=since)
    assert node.fake.path in waiting["reason"]
    assert "waiting for VPP" in waiting["reason"]
    async with caller("odd", node.forwarder, lab.near.identities) as who:
        assert await health(who.node.channels.get(node.forwarder), timeout=WAIT_S) == "NOT_SERVING"
        error = await who.refused(who.first(SERVICE), who.kernel(node.space))
        assert error.code is Code.UNAVAILABLE
        assert node.fake.path in error.message
    node.fake.begin()
    wait_event(process, "ready", timeout=WAIT_S, since=since)
    async with caller("odd", node.forwarder, lab.near.identities) as who:
        assert await health(who.node.channels.get(node.forwarder), timeout=WAIT_S) == "SERVING"
        await who.close(await who.request(who.first(SERVICE), who.kernel(node.space)))


@pytest.mark.parametrize("role", ["registry", "manager", "forwarder"])
def test_who_waits_for_an_identity_may_be_told_to_end(node: Node, role: str) -> None:
    folder = node.lab.near.directory / "another"
    daemon = node.lab.daemon(
        f"{node.lab.near.name}/{role}",
        NSM_NAME="another",
        NSM_STATE_DIR=str(folder),
        NSM_STORE="memory",
        NSM_LISTEN_ON=f"unix://{folder}.sock",
    )
    process, since = launched(node, replace(daemon, name="another", log=folder.with_suffix(".log")))
    wait_event(process, "identity.waiting", timeout=WAIT_S, since=since)
    os.kill(process.pid, signal.SIGTERM)
    assert status(node, process) == 0
    assert "Traceback" not in Path(process.log).read_text()


def test_who_waits_for_vpp_may_be_told_to_end(node: Node) -> None:
    identities.register(node.lab.near, "forwarder", "another")
    process, since = launched(node, another(node, NSM_VPP_API_SOCKET=f"{node.fake.path}.never"))
    wait_event(process, "not.serving", timeout=WAIT_S, since=since)
    os.kill(process.pid, signal.SIGTERM)
    assert status(node, process) == 0
    identities.unregister(node.lab.near, "another")


@pytest.mark.parametrize("service", [SERVICE, "ethernet-service"])
async def test_each_message_that_vpp_refuses_is_named_and_leaves_nothing(node: Node, service: str) -> None:
    empty = node.held()
    async with caller("odd", node.manager, node.lab.near.identities) as who:
        begin = len(node.fake.received)
        answer = await who.request(who.first(service), who.kernel(node.space))
        sent = [spec_of(each).name for each in node.fake.received[begin:]]
        await who.close(answer)
        assert settled(node.held, lambda now: now == empty) == empty
        messages = [name for name in sent if name != "control_ping" and not name.endswith("_dump")]
        assert "af_packet_create_v3" in messages
        seen: Counter[str] = Counter()
        for name in messages:
            seen[name] += 1
            node.fake.fail(name, BUG, seen[name])
            error = await who.refused(who.first(service), who.kernel(node.space))
            assert f"VPP refused {name}: BUG (-168)" in error.message, (name, seen[name], error)
            assert settled(node.held, lambda now: now == empty) == empty, (name, seen[name])
            assert settled(lambda: links(node.space), lambda found: not found) == {}, (name, seen[name])
        await who.close(await who.request(who.first(service), who.kernel(node.space)))
