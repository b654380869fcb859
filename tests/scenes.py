"""Labs for the acceptance and chaos suites: one per dataplane and session, nodes n1 and n2.

``lab`` is parametrised over the dataplanes; the VPP half is marked ``vpp`` and says so when no VPP is installed.
Around every test an independent census is taken: leftovers fail it, and so does a daemon that logged a traceback.
A daemon that a test killed and did not start again is started again for the next one.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import census, daemons, identities, namespaces, world
from nsmctl.lab.census import Census
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.demonstration import POOLS, cli_of, count, flows_of, is_of
from nsmctl.lab.probes import Flow, Probes, Verdict
from nsmctl.lab.processes import Process, kill
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import wait_event
from nsmctl.lab.state import Workload
from nsmctl.lab.topology import Node, Topology
from nsmctl.lab.world import World, connected
from tests.fakes import refreshes

DATAPLANES = [
    pytest.param("linux", marks=pytest.mark.linux),
    pytest.param("vpp", marks=pytest.mark.vpp),
]
WAIT_S = 30.0
"""Patience for what must happen; a test that waits that long fails, it does not measure."""


@dataclass(frozen=True, slots=True)
class Script(Daemon):
    """A daemon of the tests: ``program`` is the whole path."""

    @property
    def argv(self) -> tuple[str, ...]:
        """As given."""
        return (self.program, *self.arguments)


@dataclass
class Scene:
    """A running lab as a test uses it."""

    world: World
    forwarder_env: Mapping[str, str] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)

    @property
    def dataplane(self) -> str:
        """``vpp`` or ``linux``."""
        return self.world.topology.dataplane

    @property
    def near(self) -> Node:
        """The first node."""
        return self.world.topology.nodes[0]

    @property
    def far(self) -> Node:
        """The last node."""
        return self.world.topology.nodes[-1]

    # workloads

    def endpoint(
        self,
        name: str,
        *,
        node: Node | None = None,
        payload: str = "IP",
        services: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        **more: str,
    ) -> Path:
        """Start an endpoint; its namespace."""
        settings = {"NSM_PAYLOAD": payload, "NSM_CIDR_PREFIX": POOLS, **(env or {}), **more}
        self.added.append(name)
        self.world.start_endpoint(name, node or self.far, services or (f"{name}-service",), settings)
        return self.netns(name)

    def client(
        self,
        name: str,
        *services: str,
        node: Node | None = None,
        env: Mapping[str, str] | None = None,
        **more: str,
    ) -> list[dict[str, Any]]:
        """Start a client of these services (interfaces nsm-1, nsm-2, …); its ``connected`` events."""
        urls = [s if "://" in s else f"kernel://{s}/nsm-{i}" for i, s in enumerate(services, 1)]
        self.added.append(name)
        return list(self.world.start_client(name, node or self.near, urls, {**(env or {}), **more}))

    def client_of_file(self, name: str, file: Path, *, node: Node | None = None, **env: str) -> None:
        """Start a client whose services stand in the settings file ``file``; ready when this returns."""

        def daemon(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> Daemon:
            return replace(daemons.client(node, name, netns, extra), arguments=("--config", str(file)))

        self.added.append(name)
        place = node or self.near
        self.world._workload(Workload(name, "client", place.name, ""), env, daemon)

    def host_endpoint(self, name: str, *, node: Node, **env: str) -> None:
        """An endpoint of ``<name>-service`` that runs on the node itself, as on a plain host."""
        settings = {"NSM_SERVICE_NAMES": f"{name}-service", "NSM_CIDR_PREFIX": POOLS, **env}
        self._on_host(
            Workload(name, "endpoint", node.name, "", (f"{name}-service",)), settings, daemons.endpoint
        )

    def host_client(self, name: str, service: str, *, node: Node, **env: str) -> dict[str, Any]:
        """A client that runs on the node itself; its ``connected`` event, the interface is nsm-1."""
        settings = {"NSM_NETWORK_SERVICES": f"kernel://{service}/nsm-1", **env}
        process, offset = self._on_host(Workload(name, "client", node.name, ""), settings, daemons.client)
        return connected(process, f"{name}-0", offset)

    def host_refusal(self, name: str, url: str, *, node: Node) -> str:
        """Why a client that runs on the node itself is refused."""
        self.workload(name, node=node)
        extra = {"NSM_NETWORK_SERVICES": url}
        process, offset = self.world.launch(daemons.client(node, name, node.netns, extra))
        return str(wait_event(process, "request.failed", timeout=WAIT_S, since=offset)["reason"])

    def _on_host(
        self, workload: Workload, env: Mapping[str, str], make: Callable[..., Daemon]
    ) -> tuple[Process, int]:
        def daemon(node: Node, name: str, _netns: Path, extra: Mapping[str, str]) -> Daemon:
            return make(node, name, node.netns, extra)

        self.added.append(workload.name)
        return self.world._workload(workload, env, daemon)

    def passthrough(self, name: str, next_service: str, *, node: Node | None = None, **env: str) -> None:
        """An endpoint of ``<name>-service`` that connects its clients on to ``next_service``; a router for IPv4."""

        def daemon(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> Daemon:
            with namespaces.entered(netns):
                Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            made = daemons.endpoint(node, name, netns, extra)
            return Script(
                made.name, sys.executable, netns, made.log, made.env, ("-m", "tests.fakes.passthrough")
            )

        place = node or self.near
        settings = {
            "NSM_PAYLOAD": "IP",
            "NSM_SERVICE_NAMES": f"{name}-service",
            "NSM_NEXT_SERVICE": next_service,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **env,
        }
        self.added.append(name)
        self.world._workload(
            Workload(name, "endpoint", place.name, "", (f"{name}-service",)), settings, daemon
        )

    def workload(self, name: str, *, node: Node | None = None) -> Path:
        """A namespace with an identity and no daemon: for a client inside the test (``tests.fakes.caller``)."""
        place = node or self.near
        space = self.world.workload_space(name)
        self.world.record(self.world.state.with_workload(Workload(name, "client", place.name, space)))
        self.added.append(name)
        identities.register(place, "client", name)
        return self.netns(name)

    @contextmanager
    def trying(self, name: str, *urls: str, node: Node | None = None, **env: str) -> Iterator[str]:
        """A client that need not succeed; gone when the block ends. Gives its name, for ``wait`` and ``events``."""
        place = node or self.near
        self.workload(name, node=place)
        extra = {"NSM_NETWORK_SERVICES": ",".join(urls), **env}
        process, _ = self.world.launch(daemons.client(place, name, self.netns(name), extra))
        wait_event(process, "identity.ready", timeout=WAIT_S)
        yield name
        self.remove(name)

    def netns(self, workload: str) -> Path:
        """A workload's namespace."""
        return namespaces.path_of(self.world.topology.workload_space(workload))

    def remove(self, name: str) -> None:
        """End a workload."""
        self.world.remove_workload(name)
        self.added.remove(name)

    # probes

    def probe(
        self,
        connection: dict[str, Any],
        client: str,
        endpoint: str,
        *,
        rate: float = 1000,
        seconds: float = 1.0,
    ) -> tuple[Verdict, ...]:
        """Probe every address family of a connection."""
        with self.probes(flows_of(connection), client, endpoint, rate=rate, seconds=seconds) as running:
            return running.finish()

    def probes(
        self,
        flows: list[Flow],
        client: str,
        endpoint: str,
        *,
        rate: float = 1000,
        seconds: float | None = None,
    ) -> Probes:
        """Probes to be used as a context manager."""
        return Probes(
            flows, client=self.netns(client), endpoint=self.netns(endpoint), rate=rate, seconds=seconds
        )

    # daemons

    def process(self, name: str) -> Process:
        """The process of a daemon (``n1/manager``) or a workload."""
        return self.world.state.processes[name]

    def log(self, name: str) -> Path:
        """The log of a daemon or a workload."""
        return Path(self.process(name).log)

    def kill(self, name: str) -> None:
        """SIGKILL it and wait until it is gone."""
        kill(self.process(name))

    def daemon(self, name: str, **env: str) -> Daemon:
        """How the lab starts ``n1/manager``, ``n1/registry`` or ``n1/forwarder``; ``env`` wins."""
        topology = self.world.topology
        node_name, _, role = name.partition("/")
        node = topology.node(node_name)
        made = {
            "registry": lambda: daemons.registry(topology),
            "manager": lambda: daemons.manager(topology, node),
            "forwarder": lambda: daemons.forwarder(topology, node, self.forwarder_env),
        }[role]()
        return replace(made, env={**made.env, **env})

    def start(self, *names: str, **env: str) -> tuple[dict[str, Any], ...]:
        """Start daemons and wait until they are ready; their ``ready`` events."""
        return self.world.start(*(self.daemon(name, **env) for name in names))

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """SIGSTOP while the block runs: it holds its sockets and answers nobody."""
        pid = self.process(name).pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):  # the block may have killed it
                os.kill(pid, signal.SIGCONT)

    def is_asked(self, name: str) -> bool:
        """Whether a forwarder that is stopped has been sent something by now, which it has not read."""
        node = self.world.topology.node(name.partition("/")[0])
        return self.is_unread(node, node.directory / "forwarder.sock")

    def is_unread(self, node: Node, path: Path) -> bool:
        """Whether whoever serves a unix socket has been sent something by now, which it has not read."""
        with namespaces.entered(node.netns):
            shown = subprocess.run(["ss", "-xanH"], capture_output=True, text=True, check=True).stdout
        ends = [line.split() for line in shown.splitlines()]
        return any(str(path) in end[4] and int(end[2]) > 0 for end in ends)

    def mark_log(self, name: str) -> int:
        """Where the log of a daemon or workload ends now, for ``events`` and ``wait``."""
        return self.log(name).stat().st_size

    def events(self, name: str, event: str, *, since: int = 0) -> list[dict[str, Any]]:
        """Every event of that name in the log since then."""
        with self.log(name).open("rb") as file:
            file.seek(since)
            found = [json.loads(line) for line in file.read().splitlines() if line.startswith(b"{")]
        return [line for line in found if line.get("event") == event]

    def wait(self, name: str, event: str, *, since: int = 0, **where: Any) -> dict[str, Any]:
        """The next such event in its log."""
        return wait_event(self.process(name), event, timeout=WAIT_S, since=since, where=where)

    def mend(self) -> None:
        """Start again what a test killed and left dead."""
        names = [daemons.registry(self.world.topology).name]
        for role in ("manager", "forwarder"):
            names += [f"{node.name}/{role}" for node in self.world.topology.nodes]
        for name in names:
            if not self.process(name).alive:
                self.start(name)

    def refreshed(self, connection_id: str, times: int) -> list[str]:
        """Wait until the near manager has passed on so many Requests of a client's connection, each with a new token.

        The tokens' own view of time, told by the manager's monitor: nobody's log.
        """
        return asyncio.run(
            refreshes.tokens(self.near.manager, self.near.identities, connection_id, times, WAIT_S + 20)
        )

    # judgement

    def census(self) -> Census:
        """What exists on the nodes and in their VPPs; logs and stores are files that stay."""
        nodes = self.world.topology.nodes
        clis = [cli_of(node) for node in nodes] if self.dataplane == "vpp" else []
        found = census.take(
            spaces=[node.netns for node in nodes],
            mark=self.world.mark,
            vpp_clis=clis,
            names=is_of(self.world.topology),
        )
        return found.without_ready_pairs()

    def clean(self) -> None:
        """Remove what a test added and left, also after a failure: the clients at once, then from last to first."""
        workloads = self.world.state.workloads
        there = [workloads[name] for name in self.added if name in workloads]
        self.world.remove_workload(*(one.name for one in there if one.role == "client"))
        for one in reversed(there):
            if one.role != "client":
                self.world.remove_workload(one.name)
        self.added.clear()

    def left_since(self, before: Census) -> tuple[str, ...]:
        """The difference to ``before``, once what is removed in the background has had its time."""
        left: tuple[str, ...] = settled(lambda: before.difference(self.census()), lambda left: not left)
        return left

    def tracebacks(self, marks: Mapping[str, int]) -> list[str]:
        """Daemons of the lab that logged a traceback since ``marks``: that is always a fault."""
        broken = []
        for name, mark in marks.items():
            with self.log(name).open("rb") as file:
                file.seek(mark)
                if b"Traceback (most recent call last)" in file.read():
                    broken.append(f"{name}: see {self.log(name)}")
        return broken

    def marks(self) -> dict[str, int]:
        """Where every log of the lab's own daemons ends."""
        return {name: self.mark_log(name) for name in self.world.state.processes if "/" in name}


def links(space: Path) -> dict[str, int]:
    """Interfaces of a namespace but loopback, with the index that a replaced one would not keep."""
    with namespaces.entered(space):
        done = subprocess.run(["ip", "-j", "link", "show"], capture_output=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return {link["ifname"]: link["ifindex"] for link in found if link["ifname"] != "lo"}


def carried(verdicts: Sequence[Verdict], *, families: int = 2) -> None:
    """Fails unless probes of so many address families went both ways and every one arrived."""
    assert len(verdicts) == families
    for verdict in verdicts:
        assert min(verdict.forward.sent, verdict.back.sent) > 0
        assert verdict.lost == 0, verdict


def settled(question: Callable[[], Any], is_good: Callable[[Any], bool], seconds: float = 15.0) -> Any:
    """Ask until the answer is good; the last answer either way. For what is removed after the answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if is_good(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(0.05)


def build(dataplane: str, name: str, size: int = 2, **forwarder_env: str) -> Scene:
    """A lab of its own; skips where there can be none."""
    if dataplane == "vpp" and not (os.environ.get("VPP_BINARY") or shutil.which("vpp")):
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: labs of the test suite need root")
    topology = Topology(name, size, dataplane)
    if dataplane == "vpp":
        forwarder_env = {"NSM_VPP_PROFILE": str(deep_profile(topology)), **forwarder_env}
    try:
        made = world.up(topology, Progress(quiet=True), forwarder_env)
    except LabError as error:
        pytest.fail(f"the lab could not be built: {error}")
    return Scene(made, forwarder_env)


def deep_profile(topology: Topology) -> Path:
    """The lab's profile with rings for 200 ms of probes at 10 kHz instead of 6.

    These scenarios judge what a restart or a refusal costs, on a machine that starts daemons at the same moment;
    how long a ring lasts while VPP gets no turn is the profile's choice, and the benchmark's subject.
    """
    topology.directory.mkdir(parents=True, exist_ok=True)
    file = topology.directory / "deep.conf"
    lab = (Path(__file__).parents[1] / "vpp-config" / "lab.conf").read_text()
    file.write_text(lab.replace("workload 67584x62", "workload 4096x2046"))
    return file


@pytest.fixture(scope="session", params=DATAPLANES)
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The lab of this session and dataplane; nothing of it is left at the end."""
    name = f"acc{request.param[0]}{os.getpid()}"
    topology = Topology(name, 2, request.param)
    before = count(topology)
    scene = build(request.param, name)
    yield scene
    world.down(name, Progress(quiet=True))
    assert before.difference(count(topology)) == ()


@pytest.fixture
def lab(shared_lab: Scene) -> Iterator[Scene]:
    """The lab for one test: what the test adds is removed, and nothing of it may stay."""
    before, marks = shared_lab.census(), shared_lab.marks()
    try:
        yield shared_lab
    finally:
        shared_lab.mend()
        shared_lab.clean()
    assert shared_lab.left_since(before) == (), "leftovers"
    assert shared_lab.tracebacks(marks) == []
