"""Labs in which Go components stand in the place of ours.

``lab``: our registry, managers and forwarders on each dataplane; Go clients and endpoints are the workloads.
``go_lab``: the Go registry and Go managers with our forwarders; workloads are ours or Go's.
Around every test an independent census is taken: leftovers fail it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from nsm.model.connection import Connection
from nsm.wire import codec
from nsm.wire.generated import connection_pb2
from nsmctl.errors import LabError
from nsmctl.lab import census, daemons, identities, namespaces, world
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.demonstration import POOLS
from nsmctl.lab.processes import Process
from nsmctl.lab.progress import Progress
from nsmctl.lab.state import State, Workload
from nsmctl.lab.topology import Node, Topology
from nsmctl.lab.world import World
from tests.scenes import Scene, settled

from . import peers

# Without the Go components these cases must not count as skipped VPP cases, which fail a run.
DATAPLANES = [
    pytest.param(name, marks=() if peers.MISSING else (getattr(pytest.mark, name),))
    for name in ("linux", "vpp")
]
ON_LINUX = pytest.mark.parametrize("our_lab", DATAPLANES[:1], indirect=True)
GO_ON_LINUX = pytest.mark.parametrize("foreign_lab", DATAPLANES[:1], indirect=True)
"""For cases whose dataplane does not matter."""
RATE = 200
"""Probes a second: these suites ask whether packets arrive, not what a busy machine's rings can hold."""
GO_STATE = Path("/var/lib/networkservicemesh")
"""The Go manager makes this folder on its first Request, wherever it runs."""


class GoWorld(World):
    """A lab whose registry and managers are Go's; forwarders and identities are ours."""

    def build(self, progress: Progress, forwarder_env: Mapping[str, str]) -> None:
        topology = self.topology
        self._namespaces()
        self.start(*identities.prepare(topology))
        for daemon in (
            peers.registry(topology),
            *(peers.manager(topology, node) for node in topology.nodes),
        ):
            process, offset = self.launch(daemon)
            peers.wait_lines(process, peers.SERVES[daemon.program], since=offset)
        self.start(*(daemons.forwarder(topology, node, forwarder_env) for node in topology.nodes))


@dataclass(frozen=True)
class GoClient:
    """A Go client that is connected."""

    process: Process
    connection: Connection

    @property
    def addresses(self) -> dict[str, Any]:
        """As in the ``connected`` event of ours."""
        context = self.connection.context
        assert context is not None
        assert context.ip_context is not None
        return {
            "src_ip_addrs": list(context.ip_context.src_ip_addrs),
            "dst_ip_addrs": list(context.ip_context.dst_ip_addrs),
        }


@dataclass
class Mixed(Scene):
    """A scene with Go workloads."""

    used: set[str] = field(default_factory=set)

    def go_endpoint(
        self,
        name: str,
        *,
        node: Node | None = None,
        payload: str = "IP",
        services: Sequence[str] = (),
        **env: str,
    ) -> Process:
        """Start a Go endpoint in a namespace of its own; registered when this returns."""
        settings = {
            "NSM_PAYLOAD": payload,
            "NSM_CIDR_PREFIX": POOLS,
            "NSM_SERVICE_NAMES": ",".join(services or (f"{name}-service",)),
            **env,
        }
        return self._start("endpoint", name, node or self.far, peers.endpoint, settings)[0]

    def go_client(self, name: str, *services: str, node: Node | None = None, **env: str) -> GoClient:
        """Start a Go client of these services; connected to all of them when this returns. The first connection."""
        urls = [f"kernel://{service}/nsm-{number}" for number, service in enumerate(services, 1)]
        settings = {"NSM_NETWORK_SERVICES": ",".join(urls), **env}
        process, line = self._start(
            "client", name, node or self.near, peers.client, settings, count=len(services)
        )
        return GoClient(process, _connection(line))

    def _start(
        self, role: str, name: str, node: Node, daemon: Any, env: Mapping[str, str], *, count: int = 1
    ) -> tuple[Process, str]:
        space = self.world.workload_space(name)
        self.added.append(name)
        self.world.record(self.world.state.with_workload(Workload(name, role, node.name, space, ())))
        identities.register(node, role, name)
        wanted: Daemon = daemon(node, name, namespaces.path_of(space), env)
        process, offset = self.world.launch(wanted)
        text = peers.SERVES[wanted.program]
        return process, peers.wait_lines(process, text, count=count, since=offset)

    def text(self, process: Process) -> str:
        """What it has written so far."""
        return Path(process.log).read_text(errors="replace")


def _connection(line: str) -> Connection:
    """The connection of a line ``successfully connected to S. Response: ...`` in protobuf's text form."""
    message = text_format.Parse(line.partition("Response: ")[2], connection_pb2.Connection())
    return codec.CONNECTION.decode(message.SerializeToString())


def build(dataplane: str, name: str, kind: type[World]) -> Mixed:
    """A lab of its own; skips where there can be none."""
    if peers.MISSING:
        pytest.skip(peers.REASON)
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: labs of the test suite need root")
    if dataplane == "vpp" and not (os.environ.get("VPP_BINARY") or shutil.which("vpp")):
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    built = kind(State(Topology(name, 2, dataplane)))
    built.record(built.state)
    try:
        built.build(Progress(quiet=True), {})
    except BaseException as error:
        world.down(name, Progress(quiet=True), keep_logs=True)
        if isinstance(error, LabError):
            pytest.fail(f"the lab could not be built: {error}")
        raise
    return Mixed(built)


def _session(dataplane: str, prefix: str, kind: type[World]) -> Iterator[Mixed]:
    name = f"{prefix}{dataplane}{os.getpid()}"
    had_state = GO_STATE.exists()
    scene = build(dataplane, name, kind)
    yield scene
    world.down(name, Progress(quiet=True))
    if not had_state:
        shutil.rmtree(GO_STATE, ignore_errors=True)
    topology = scene.world.topology
    left = census.take(mark=scene.world.mark, directories=[topology.directory]).facts
    assert not left["process"]
    assert not left[f"file {topology.directory}"]
    assert not [fact for facts in left.values() for fact in facts if name in fact]


def _test(scene: Mixed) -> Iterator[Mixed]:
    before, marks = scene.census(), scene.marks()
    try:
        yield scene
    finally:
        scene.mend()
        scene.clean()
    assert settled(lambda: _left(before, scene), lambda left: not left) == [], "leftovers"
    assert scene.tracebacks(marks) == []


def _left(before: census.Census, scene: Mixed) -> list[str]:
    """Of the machine outside the lab only what bears the lab's name: other labs come and go there."""
    lines = []
    for line in before.difference(scene.census()):
        kind, _, fact = line[2:].partition(": ")
        is_outside = kind.endswith(" here") or kind == "namespace" or kind.startswith("file /")
        if not is_outside or scene.world.topology.name in fact:
            lines.append(line)
    return lines


@pytest.fixture(scope="session", params=DATAPLANES)
def our_lab(request: pytest.FixtureRequest) -> Iterator[Mixed]:
    """Our control plane; nothing of it is left at the end."""
    yield from _session(request.param, "io", World)


@pytest.fixture
def lab(our_lab: Mixed) -> Iterator[Mixed]:
    """Our control plane for one test; what the test adds is removed, and nothing of it may stay."""
    yield from _test(our_lab)


@pytest.fixture(scope="session", params=DATAPLANES)
def foreign_lab(request: pytest.FixtureRequest) -> Iterator[Mixed]:
    """The Go control plane; nothing of it is left at the end."""
    yield from _session(request.param, "ig", GoWorld)


@pytest.fixture
def go_lab(foreign_lab: Mixed) -> Iterator[Mixed]:
    """The Go control plane for one test; what the test adds is removed, and nothing of it may stay."""
    yield from _test(foreign_lab)
