"""Who plays which role: worlds of our daemons, of Go's, and of both, and their workloads.

A ``Cast`` is of one make with at most one role in the other's hands: that one process, on the first node (clients and
endpoints: wherever they are). Everything else, names, URLs and identities, stays as it was.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from google.protobuf import text_format

from nsm.model.connection import Connection
from nsm.wire import codec
from nsm.wire.generated import connection_pb2
from nsmctl.lab import daemons, identities, namespaces
from nsmctl.lab.census import Census
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.demonstration import POOLS
from nsmctl.lab.processes import Process
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import wait_event
from nsmctl.lab.state import State, Workload
from nsmctl.lab.topology import Node
from nsmctl.lab.world import READY_S, World, connected
from tests.scenes import Scene

from . import govpp, peers

Make = Literal["ours", "Go"]
ROLES: Final = ("client", "manager", "registry", "forwarder", "endpoint")
PROGRAMS: Final = {
    "client": peers.CLIENT,
    "manager": peers.MANAGER,
    "registry": peers.REGISTRY,
    "forwarder": peers.FORWARDER,
    "endpoint": peers.ENDPOINT,
}


@dataclass(frozen=True)
class Cast:
    """Everything of ``make``, but the ``swapped`` roles of the other; identities from SPIRE or from ours.

    ``is_federated``: the last node is in a trust domain of its own, with a SPIRE server of its own.
    """

    make: Make
    swapped: tuple[str, ...] = ()
    everywhere: bool = False
    on_spire: bool = False
    is_federated: bool = False

    def is_go(self, role: str, node: Node) -> bool:
        """Whether a Go component plays that role on that node."""
        is_place = self.everywhere or node.number == 1 or role in {"client", "endpoint"}
        return (self.make == "Go") != (role in self.swapped and is_place)

    @property
    def has_go(self) -> bool:
        """Whether anything is Go's."""
        return self.make == "Go" or bool(self.swapped)

    @property
    def name(self) -> str:
        """For people: who is different from the rest."""
        where = " on SPIRE" if self.on_spire else ""
        where += " federated" if self.is_federated else ""
        if not self.swapped:
            return f"all {self.make}{where}"
        return f"{'Go' if self.make == 'ours' else 'our'} {', '.join(self.swapped)}{where}"

    @property
    def peers(self) -> tuple[str, ...]:
        """The foreign programs it needs on two nodes."""
        return (
            *(
                PROGRAMS[role]
                for role in ROLES
                if any(self.is_go(role, node) for node in (Node("", 1), Node("", 2)))
            ),
            *(peers.SPIRE if self.on_spire else ()),
        )


OURS: Final = Cast("ours")
ALL_GO: Final = Cast("Go")
GO_CONTROL_PLANE: Final = Cast("ours", ("registry", "manager"), everywhere=True)


def played_by(*casts: Cast) -> list[object]:
    """Parameters for ``theatre``; alone in a ``parametrize``, so that cases of one cast share its lab."""
    return [
        pytest.param(cast, marks=peers.needs(*cast.peers), id=cast.name.replace(" ", "-")) for cast in casts
    ]


class CastWorld(World):
    """A lab in which Go components play some of the roles."""

    def __init__(self, recorded: State, cast: Cast) -> None:
        super().__init__(recorded)
        self.cast = cast

    def build(self, progress: Progress, forwarder_env: Mapping[str, str]) -> None:
        self._namespaces()
        self.prepare_identities()
        nodes = self.topology.nodes
        self.start(self.daemon("registry", nodes[0], forwarder_env))
        self.start(*(self.daemon("manager", node, forwarder_env) for node in nodes))
        self.start(*(self.daemon("forwarder", node, forwarder_env) for node in nodes))

    def prepare_identities(self) -> None:
        """Who attests the daemons: the embedded service of each node."""
        self.start(*identities.prepare(self.topology))

    def identify(self, node: Node, role: str, name: str) -> None:
        """Give a workload its identity."""
        identities.register(node, role, name)

    def daemon(self, role: str, node: Node, forwarder_env: Mapping[str, str]) -> Daemon:
        """How the lab starts a registry, manager or forwarder of this cast."""
        topology = self.topology
        if self.cast.is_go(role, node):
            return {
                "registry": lambda: peers.registry(topology),
                "manager": lambda: peers.manager(topology, node),
                "forwarder": lambda: peers.forwarder(node),
            }[role]()
        return {
            "registry": lambda: daemons.registry(topology),
            "manager": lambda: daemons.manager(topology, node),
            "forwarder": lambda: daemons.forwarder(topology, node, forwarder_env),
        }[role]()

    def start(self, *wanted: Daemon) -> tuple[dict[str, Any], ...]:
        """As the base's; a Go forwarder gets its VPP first, and has no ``ready`` event."""
        self._start_vpps([daemon for daemon in wanted if daemon.program == peers.FORWARDER])
        started = [(daemon, *self.launch(daemon)) for daemon in wanted]
        with ThreadPoolExecutor(max(1, len(started))) as pool:
            return tuple(pool.map(lambda one: wait_ready(*one), started))

    def _start_vpps(self, forwarders: Sequence[Daemon]) -> None:
        nodes = [self.topology.node(daemon.name.partition("/")[0]) for daemon in forwarders]
        started = [(self.launch(govpp.daemon(node))[0], node) for node in nodes if not self._has_vpp(node)]
        for process, node in started:
            govpp.wait_uplink(process, node)

    def _has_vpp(self, node: Node) -> bool:
        process = self.state.processes.get(f"{node.name}/vpp")
        return process is not None and process.alive


def wait_ready(daemon: Daemon, process: Process, offset: int) -> dict[str, Any]:
    """Until a daemon of either make serves; the ``ready`` event of ours. LabError says what its log ends with."""
    if daemon.program in peers.SERVES:
        peers.wait_lines(process, peers.SERVES[daemon.program], since=offset)
        return {}
    return wait_event(process, "ready", timeout=READY_S, since=offset)


@dataclass(frozen=True)
class GoClient:
    """A Go client that is connected."""

    process: Process
    connection: Connection

    @property
    def addresses(self) -> dict[str, Any]:
        """As in the ``connected`` event of ours."""
        return _addresses(self.connection)


@dataclass
class Mixed(Scene):
    """A scene in which workloads and daemons may be Go's."""

    world: CastWorld
    played: dict[str, tuple[str, Daemon]] = field(default_factory=dict)

    @property
    def cast(self) -> Cast:
        """Who plays which role."""
        return self.world.cast

    def daemon(self, name: str, **env: str) -> Daemon:
        """As the cast has it."""
        node, _, role = name.partition("/")
        return self.world.daemon(role, self.world.topology.node(node), {**self.forwarder_env, **env})

    # Go workloads by name

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
        settings = _endpoint_settings(name, payload, services, env)
        return self._begin("endpoint", name, node or self.far, peers.endpoint, settings)[0]

    def go_client(self, name: str, *services: str, node: Node | None = None, **env: str) -> GoClient:
        """Start a Go client of these services; connected to all of them when this returns. The first connection."""
        urls = [f"kernel://{service}/nsm-{number}" for number, service in enumerate(services, 1)]
        settings = {"NSM_NETWORK_SERVICES": ",".join(urls), **env}
        process, offset = self._begin("client", name, node or self.near, peers.client, settings)
        text = peers.SERVES[peers.CLIENT]
        peers.wait_lines(process, text, count=len(services), since=offset)
        return GoClient(process, _connection(peers.wait_lines(process, text, since=offset)))

    # workloads as the cast has them

    def cast_endpoint(self, name: str, *, node: Node, payload: str, **env: str) -> None:
        """Start the cast's endpoint of ``<name>-service``; registered when this returns."""
        make = peers.endpoint if self.cast.is_go("endpoint", node) else daemons.endpoint
        self._begin("endpoint", name, node, make, _endpoint_settings(name, payload, (), env))

    def cast_client(self, name: str, service: str, *, node: Node, **env: str) -> dict[str, Any]:
        """Start the cast's client; the addresses of its connection, as in the ``connected`` event of ours."""
        make = peers.client if self.cast.is_go("client", node) else daemons.client
        settings = {"NSM_NETWORK_SERVICES": f"kernel://{service}/nsm-1", **env}
        return self._connected(name, *self._begin("client", name, node, make, settings))

    def again(self, name: str) -> None:
        """Kill a workload's process and start it anew in its namespace; ready or connected when this returns."""
        role, daemon = self.played[name]
        self.kill(name)
        process, offset = self.world.launch(daemon)
        wait_ready(daemon, process, offset)
        if role == "client":
            self._connected(name, process, offset)

    def again_daemon(self, name: str) -> None:
        """Kill a registry, manager or forwarder and start it anew; a Go forwarder's VPP with it, as in its pod."""
        self.kill(name)
        node, _, role = name.partition("/")
        if self.cast.is_go(role, self.world.topology.node(node)) and role == "forwarder":
            self.kill(f"{node}/vpp")
        self.start(name)

    def _connected(self, name: str, process: Process, offset: int) -> dict[str, Any]:
        if self.played[name][1].program != peers.CLIENT:
            return connected(process, f"{name}-0", offset)
        return _addresses(_connection(peers.wait_lines(process, peers.SERVES[peers.CLIENT], since=offset)))

    def _begin(
        self, role: str, name: str, node: Node, daemon: Any, env: Mapping[str, str]
    ) -> tuple[Process, int]:
        process, offset = self.launched(role, name, node, daemon, env)
        wait_ready(self.played[name][1], process, offset)
        return process, offset

    def launched(
        self, role: str, name: str, node: Node, daemon: Any, env: Mapping[str, str]
    ) -> tuple[Process, int]:
        """A workload's process, which has just been started, and where in its log its own lines begin."""
        space = self.world.workload_space(name)
        self.added.append(name)
        self.world.record(self.world.state.with_workload(Workload(name, role, node.name, space, ())))
        self.world.identify(node, role, name)
        wanted: Daemon = daemon(node, name, namespaces.path_of(space), env)
        self.played[name] = (role, wanted)
        return self.world.launch(wanted)

    # judgement

    def left(self, before: Census) -> list[str]:
        """What came or went since, of this lab; elsewhere on the machine other labs come and go."""
        lines = []
        for line in before.difference(self.census()):
            kind, _, fact = line[2:].partition(": ")
            is_outside = kind.endswith(" here") or kind == "namespace" or kind.startswith("file /")
            if not is_outside or self.world.topology.name in fact:
                lines.append(line)
        return lines

    def of_ours(self, before: Census) -> list[str]:
        """The same without what stands on a node whose forwarder is Go's."""
        theirs = [node for node in self.world.topology.nodes if self.cast.is_go("forwarder", node)]
        kinds = [f" {node.space}" for node in theirs] + [f"vpp {node.vpp_directory}/" for node in theirs]
        return [
            line
            for line in self.left(before)
            if not any(kind in line[2:].partition(": ")[0] for kind in kinds)
        ]

    def text(self, process: Process) -> str:
        """What it has written so far."""
        return Path(process.log).read_text(errors="replace")


def _endpoint_settings(
    name: str, payload: str, services: Sequence[str], env: Mapping[str, str]
) -> dict[str, str]:
    return {
        "NSM_PAYLOAD": payload,
        "NSM_CIDR_PREFIX": POOLS,
        "NSM_SERVICE_NAMES": ",".join(services or (f"{name}-service",)),
        **env,
    }


def _connection(line: str) -> Connection:
    """The connection of a line ``successfully connected to S. Response: ...`` in protobuf's text form."""
    message = text_format.Parse(line.partition("Response: ")[2], connection_pb2.Connection())
    return codec.CONNECTION.decode(message.SerializeToString())


def _addresses(connection: Connection) -> dict[str, Any]:
    context = connection.context
    assert context is not None
    assert context.ip_context is not None
    return {
        "src_ip_addrs": list(context.ip_context.src_ip_addrs),
        "dst_ip_addrs": list(context.ip_context.dst_ip_addrs),
    }
