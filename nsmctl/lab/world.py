"""Builds and removes a lab: nodes as namespaces, their daemons, workloads. Nothing half-made stays behind.

``up`` that fails takes down what it had made. ``down`` goes by the record *and* by the mark that every process
inherits, so that it also finds what a crashed daemon had started.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from forwarder_vpp.dataplane.linux.inotify_room import InotifyRoom
from forwarder_vpp.dataplane.vpp.profile import segment_prefix
from nsmctl.errors import LabError
from nsmctl.lab import daemons, identities, namespaces, state
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import Process, marked, spawn, stop
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import wait_event
from nsmctl.lab.state import State, Workload
from nsmctl.lab.topology import RUN, Node, Topology, mark
from nsmctl.lab.underlay import Port, Underlay

READY_S: Final = 60.0
"""How long a daemon may take to serve; generous, for loaded machines."""

GRACE_S: Final = 10.0


def underlay(topology: Topology) -> Underlay:
    """The cable between the nodes."""
    return Underlay(namespaces.path_of(topology.cable), topology.mtu)


def port(node: Node) -> Port:
    """A node's place on the cable."""
    return Port(node.name, node.netns, node.number)


class World:
    """A lab that is up, or being built; every change is recorded at once."""

    def __init__(self, recorded: State) -> None:
        self.state = recorded

    @classmethod
    def find(cls, name: str) -> "World":
        """The lab of that name; LabError if it is not up."""
        return cls(state.load(name))

    @property
    def topology(self) -> Topology:
        """What it consists of."""
        return self.state.topology

    @property
    def mark(self) -> str:
        """What every process of this lab carries in its environment."""
        return mark(self.topology.name)

    # nodes

    def build(self, progress: Progress, forwarder_env: Mapping[str, str]) -> None:
        """Namespaces, cable, identities, registry, managers, forwarders."""
        topology = self.topology
        with progress.step(f"{topology.size} nodes joined by a cable of MTU {topology.mtu}"):
            self._namespaces()
        with progress.step(f"identities of spiffe://{identities.TRUST_DOMAIN}, one service a node"):
            self.start(*identities.prepare(topology))
        with progress.step("registry and managers"):
            self.start(daemons.registry(topology))
            self.start(*(daemons.manager(topology, node) for node in topology.nodes))
        with progress.step(f"forwarders on the {topology.dataplane} dataplane"):
            self.start(*(daemons.forwarder(topology, node, forwarder_env) for node in topology.nodes))

    def _namespaces(self) -> None:
        topology = self.topology
        namespaces.create(topology.cable)
        cable = underlay(topology)
        cable.build()
        for node in topology.nodes:
            namespaces.create(node.space)
            node.directory.mkdir(parents=True, exist_ok=True)
            cable.attach(port(node))

    # processes

    def start(self, *wanted: Daemon) -> tuple[dict[str, Any], ...]:
        """Start daemons at once and wait until each is ready; their ``ready`` events. LabError says which failed."""
        started = [self.launch(daemon) for daemon in wanted]
        with ThreadPoolExecutor(max(1, len(started))) as pool:
            return tuple(
                pool.map(lambda pair: wait_event(pair[0], "ready", timeout=READY_S, since=pair[1]), started)
            )

    def launch(self, daemon: Daemon) -> tuple[Process, int]:
        """Start one daemon without waiting: the process, and where in its log its own lines begin."""
        with suppress(FileNotFoundError):
            return self._spawn(daemon, daemon.log.stat().st_size)
        return self._spawn(daemon, 0)

    def _spawn(self, daemon: Daemon, offset: int) -> tuple[Process, int]:
        process = spawn(
            daemon.name,
            daemon.argv,
            netns=daemon.netns,
            log=daemon.log,
            env=daemon.env,
            mark=self.mark,
        )
        self.record(self.state.with_process(process))
        return process, offset

    def end(self, *names: str, grace: float = GRACE_S) -> None:
        """SIGTERM these daemons, SIGKILL those that do not listen."""
        processes = [self.state.processes[name] for name in names if name in self.state.processes]
        stop(processes, grace=grace)
        self.record(self.state.without_processes(*names))

    def record(self, new: State) -> None:
        """Keep the record equal to what runs."""
        self.state = new
        state.save(new)

    # workloads

    def workload_space(self, name: str) -> str:
        """Make the namespace of a workload; its name."""
        space = self.topology.workload_space(name)
        namespaces.create(space)
        return space

    def start_endpoint(self, name: str, node: Node, services: Sequence[str], env: Mapping[str, str]) -> None:
        """An endpoint in a namespace of its own, registered when this returns."""
        extra = {"NSM_SERVICE_NAMES": ",".join(services), **env}
        self._workload(Workload(name, "endpoint", node.name, "", tuple(services)), extra, daemons.endpoint)

    def start_client(
        self, name: str, node: Node, urls: Sequence[str], env: Mapping[str, str]
    ) -> tuple[dict[str, Any], ...]:
        """A client in a namespace of its own, connected when this returns: its ``connected`` events."""
        extra = {"NSM_NETWORK_SERVICES": ",".join(urls), **env}
        workload = Workload(name, "client", node.name, "", tuple(urls))
        process, offset = self._workload(workload, extra, daemons.client)
        return tuple(connected(process, f"{name}-{index}", offset) for index in range(len(urls)))

    def _workload(self, workload: Workload, env: Mapping[str, str], daemon: Any) -> tuple[Process, int]:
        if workload.name in self.state.workloads:
            raise LabError(f"there is a workload {workload.name!r} already", hint="choose another --name")
        node = self.topology.node(workload.node)
        space = self.workload_space(workload.name)
        placed = Workload(workload.name, workload.role, workload.node, space, workload.services)
        self.record(self.state.with_workload(placed))
        try:
            identities.register(node, workload.role, workload.name)
            process, offset = self.launch(daemon(node, workload.name, namespaces.path_of(space), env))
            wait_event(process, "ready", timeout=READY_S, since=offset)
        except BaseException:
            self.remove_workload(workload.name)
            raise
        return process, offset

    def remove_workload(self, *names: str) -> None:
        """End the daemons of workloads politely, at once, and remove their namespaces."""
        for name in names:
            if name not in self.state.workloads:
                raise LabError(f"there is no workload {name!r}", hint="see nsmctl lab status")
        self.end(*names)
        for name in names:
            workload = self.state.workloads[name]
            identities.unregister(self.topology.node(workload.node), name)
            namespaces.delete(workload.space)
            self.record(self.state.without_workload(name))


def connected(process: Process, connection: str, offset: int = 0) -> dict[str, Any]:
    """The client's ``connected`` event for one connection id, ``<client>-<index>``."""
    return wait_event(process, "connected", timeout=READY_S, since=offset, where={"connection": connection})


def up(topology: Topology, progress: Progress, forwarder_env: Mapping[str, str] | None = None) -> World:
    """Build a lab. LabError if one of that name is up, or with the reason why it could not be built."""
    if state.find(topology.name) is not None:
        raise LabError(
            f"a lab {topology.name!r} is up already", hint="nsmctl lab down, or choose another --name"
        )
    world = World(State(topology))
    world.record(world.state)
    try:
        world.build(progress, forwarder_env or {})
    except BaseException:
        down(topology.name, Progress(quiet=True), keep_logs=True)
        raise
    return world


def down(name: str, progress: Progress, *, keep_logs: bool = False) -> None:
    """Remove a lab: clients first, so that everything closes as it would in life; then what is left by force."""
    recorded = state.find(name)
    if recorded is not None:
        with progress.step("workloads"):
            _end(recorded, [w.name for w in recorded.workloads.values() if w.role == "client"])
            _end(recorded, [w.name for w in recorded.workloads.values() if w.role == "endpoint"])
        with progress.step("daemons"):
            for role in ("forwarder", "manager", "registry", "identity"):
                _end(recorded, [key for key in recorded.processes if key.endswith(f"/{role}")])
    with progress.step("what was left"):
        stop(marked(mark(name), RUN / name), grace=GRACE_S)
        for space in namespaces.names():
            if space.startswith(f"{name}-"):
                namespaces.delete(space)
        InotifyRoom().leave()
        if recorded is not None:
            _remove_shared_memory(recorded.topology)
        _remove_files(name, keep_logs=keep_logs)


def _end(recorded: State, names: Iterable[str]) -> None:
    stop([recorded.processes[name] for name in names if name in recorded.processes], grace=GRACE_S)


def _remove_shared_memory(topology: Topology) -> None:
    """What the nodes' VPPs leave in /dev/shm: VPP itself removes it only when it starts again."""
    for node in topology.nodes:
        for file in Path("/dev/shm").glob(f"{segment_prefix(node.vpp_directory)}-*"):  # noqa: S108 - VPP's place
            file.unlink(missing_ok=True)


def _remove_files(name: str, *, keep_logs: bool) -> None:
    """The lab's folder; after a failure its logs move to /tmp for reading."""
    directory = RUN / name
    if keep_logs:
        kept = [file for file in directory.rglob("*.log") if file.stat().st_size]
        target = RUN.parent.parent / "tmp" / f"nsm-lab-{name}-logs"
        shutil.rmtree(target, ignore_errors=True)
        for file in kept:
            copy = target / file.relative_to(directory)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    shutil.rmtree(directory, ignore_errors=True)
    with suppress(OSError):
        RUN.rmdir()  # only when it was the last lab
