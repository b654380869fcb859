"""The mesh of the demonstration: every daemon a container, VPP and the agent of a node apart.

The nodes are the lab's: network namespaces on one cable, the same names, addresses and variables. What a container
shares with others is the folder of sockets and, for the daemons of a node, the node's network namespace.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.containers import image
from deploy.containers.podman import Order, Podman, capabilities_of
from forwarder_vpp.dataplane.vpp.profile import render
from nsmctl.errors import LabError
from nsmctl.lab import daemons, identities, namespaces
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import MARK, Process
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import tail, wait_event
from nsmctl.lab.topology import Node, Topology, mark
from nsmctl.lab.watch import wait_for_path
from nsmctl.lab.world import port, underlay

READY_S: Final = 90.0
LIVENESS: Final = "10s"
"""How long a client's pings may be away before it takes its connection for dead: two VPPs on a loaded machine may be
slow, and what this shows is that no packet is lost while the agent is away."""

_PREFERRED: Final = ("--cpu-shares", image.labels("vpp")["cpu-shares"])
"""VPP goes before those that talk about packets, as under an agent that starts it itself."""

PROGRAMS: Final = "/opt/nsm/bin"
PROFILE: Final = "af_packet"


@dataclass(frozen=True, slots=True)
class Images:
    """What the containers are made of; ``vpp_mounts`` and ``vpp_env`` are empty where VPP is in its image."""

    base: str
    agent: str
    vpp: str
    vpp_binary: str
    vpp_mounts: Sequence[str] = ()
    vpp_env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """How a workload's daemon reaches the workload's namespace: ``netns`` as ``NSM_NETNS`` has it, "" = as its own."""

    netns: str
    network: str = "none"
    capabilities: tuple[str, ...] = ()
    options: tuple[str, ...] = ("--pid", "host")


@dataclass
class Mesh:
    """Containers by name, as they were started."""

    podman: Podman
    topology: Topology
    images: Images
    progress: Progress
    running: dict[str, Process] = field(default_factory=dict)

    def build(self) -> None:
        """Nodes, identities, registry, managers, VPPs, agents."""
        topology = self.topology
        with self.progress.step(f"{topology.size} nodes joined by a cable"):
            self._nodes()
        with self.progress.step("containers: one identity service a node, a registry, a manager a node"):
            self.start_all(identities.prepare(topology))
            self.start_all([daemons.registry(topology)])
            self.start_all(daemons.manager(topology, node) for node in topology.nodes)
        listed = ",".join(image.capabilities("vpp"))
        with self.progress.step(f"containers: VPP of each node with {listed}"):
            for node in topology.nodes:
                self.start_vpp(node)
        listed = ",".join(image.capabilities("agent"))
        with self.progress.step(f"containers: agent of each node with {listed}"):
            self.start_agents(*topology.nodes)

    def _nodes(self) -> None:
        namespaces.create(self.topology.cable)
        cable = underlay(self.topology)
        cable.build()
        for node in self.topology.nodes:
            namespaces.create(node.space)
            node.vpp_directory.mkdir(parents=True, exist_ok=True)
            cable.attach(port(node))

    # containers

    def start_vpp(self, node: Node) -> None:
        """VPP of a node, answering when this returns. LabError with the end of its log."""
        directory = node.vpp_directory
        configuration = directory / "startup.conf"
        configuration.write_text(render(PROFILE, directory, {}))
        order = Order(
            self.name(f"{node.name}/vpp"),
            self.images.vpp,
            (self.images.vpp_binary, "-c", str(configuration)),
            f"ns:{node.netns}",
            image.capabilities("vpp"),
            {**self.images.vpp_env, MARK: mark(self.topology.name)},
            [*self.images.vpp_mounts, *self._shared()],
            ("--shm-size", "256m", *_PREFERRED),
        )
        process = self._started(order, node.directory / "vpp.log")
        try:
            wait_for_path(directory / "api.sock", timeout=READY_S)
        except LabError as error:
            raise LabError(f"{error.message}:\n{tail(process)}") from error

    def start_agents(self, *nodes: Node) -> None:
        """The agents of these nodes, serving and healthy when this returns; they use the VPP that is there."""
        options = ("--pid", "host", "--security-opt", f"unmask={image.labels('agent')['unmask']}")
        self.start_all(
            (
                daemons.forwarder(
                    self.topology, node, {"NSM_VPP_API_SOCKET": str(node.vpp_directory / "api.sock")}
                )
                for node in nodes
            ),
            image.capabilities("agent"),
            options,
        )
        check = self.podman.health_check(self.images.agent)
        for node in nodes:
            self.podman.execute(self.name(f"{node.name}/forwarder"), check)

    def start_all(
        self, wanted: Iterable[Daemon], capabilities: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        """Daemons of nodes, all ready when this returns."""
        started = [
            (self._start(daemon, f"ns:{daemon.netns}", capabilities, options), offset)
            for daemon in wanted
            for offset in (_size(daemon.log),)
        ]
        for process, offset in started:
            wait_event(process, "ready", timeout=READY_S, since=offset)

    def replace_agent(self, node: Node) -> None:
        """Stop the agent of a node, remove its container and start a new one."""
        self.remove(f"{node.name}/forwarder")
        self.start_agents(node)

    def start_workload(self, name: str) -> Path:
        """A container without a network, of a user who is not root, and the file of its network namespace."""
        options = ("--user", "65534:65534")
        order = Order(self.name(name), self.images.base, ("/bin/sleep", "infinity"), "none", options=options)
        process = self._started(order, self.topology.directory / f"{name}.log")
        return Path(f"/proc/{process.pid}/ns/net")

    def start_endpoint(self, node: Node, name: str, place: Place, env: Mapping[str, str]) -> None:
        """An endpoint for a workload, registered when this returns."""
        identities.register(node, "endpoint", name)
        process = self._beside(daemons.endpoint(node, name, Path(), {"NSM_NETNS": place.netns, **env}), place)
        wait_event(process, "ready", timeout=READY_S)

    def start_client(self, node: Node, name: str, place: Place, env: Mapping[str, str]) -> dict[str, Any]:
        """A client for a workload: its ``connected`` event."""
        identities.register(node, "client", name)
        extra = {"NSM_NETNS": place.netns, "NSM_LIVENESS_CHECK_TIMEOUT": LIVENESS, **env}
        process = self._beside(daemons.client(node, name, Path(), extra), place)
        return wait_event(process, "connected", timeout=READY_S)

    def _beside(self, daemon: Daemon, place: Place) -> Process:
        return self._start(daemon, place.network, place.capabilities, place.options)

    def remove(self, name: str, *, grace: int = 30) -> None:
        """Stop a container as an operator would, and remove it."""
        self.podman.stop(self.name(name), grace=grace)
        self.running.pop(name, None)

    def name(self, short: str) -> str:
        """A container's full name."""
        return f"{self.topology.name}-{short.replace('/', '-')}"

    def _start(
        self, daemon: Daemon, network: str, capabilities: Sequence[str], options: Sequence[str]
    ) -> Process:
        order = Order(
            self.name(daemon.name),
            self.images.agent,
            (f"{PROGRAMS}/{daemon.program}", *daemon.arguments),
            network,
            capabilities,
            {**daemon.env, MARK: mark(self.topology.name)},
            self._shared(),
            options,
        )
        return self._started(order, daemon.log, daemon.name)

    def _started(self, order: Order, log: Path, short: str = "") -> Process:
        """Start it, and see in the kernel that it has the capabilities it was given and no other."""
        process = self.podman.start(order, log)
        if not process.alive:
            raise LabError(f"container {order.name} ended at once:\n{tail(process)}")
        found = capabilities_of(process)
        if found != set(order.capabilities):
            raise LabError(
                f"{order.name} has the capabilities {sorted(found)}, not {sorted(order.capabilities)}"
            )
        self.running[short or order.name] = process
        return process

    def _shared(self) -> list[str]:
        directory = self.topology.directory
        return [f"{directory}:{directory}"]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
