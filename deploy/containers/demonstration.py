"""Two workloads in containers without a network reach each other through VPP and agents in containers.

For IP, client and endpoint are containers of their own and name the workload's namespace by process id and by path;
for Ethernet they are sidecars, which share the workload's network and need no capability at all. Probes go both ways;
then the agents are replaced while they go on. Who says so: the probes' receivers, VPP's own tunnel counters, and a
census of the machine before and after.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.containers.mesh import Mesh, Place
from nsm.model.mechanism import ETHERNET, IP
from nsmctl.lab import census, counters
from nsmctl.lab.census import Census
from nsmctl.lab.demonstration import cli_of, flows_of
from nsmctl.lab.probes import Flow, Probes, Verdict
from nsmctl.lab.topology import Node

PAYLOADS: Final = (IP, ETHERNET)
RATE: Final = 1000.0
"""Probes a second and flow; while the agents are replaced the flows of both payloads go at once."""

SETTLE_S: Final = 20.0
"""What is removed in the background after a Close has this long."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A container without a network: its full name, its node, the file of its network namespace."""

    name: str
    node: Node
    path: Path

    def by_process(self) -> Place:
        """Named by process id, which is another user's; the client's liveness check enters the namespace."""
        return Place(self.path.parts[2], capabilities=("SYS_ADMIN", "SYS_PTRACE"))

    def by_path(self) -> Place:
        """Named by path, which is handed on and never entered."""
        return Place(str(self.path), capabilities=("SYS_PTRACE",))

    def as_sidecar(self) -> Place:
        """The workload's namespace is the daemon's own."""
        return Place("", network=f"container:{self.name}", options=())


@dataclass
class Demonstration:
    """One run in a mesh that is up; ``problems`` is empty if everything held."""

    mesh: Mesh
    seconds: float
    rate: float = RATE
    flows: list[Flow] = field(default_factory=list)
    probes: int = 0
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Everything, with the connections closed and the workloads gone at the end."""
        idle = self._idle()
        near, far = self.mesh.topology.nodes[0], self.mesh.topology.nodes[-1]
        with self.mesh.progress.step("two workload containers with --network none"):
            client = self._workload("workload-client", near)
            endpoint = self._workload("workload-endpoint", far)
        for number, payload in enumerate(PAYLOADS):
            self._payload(number, payload, client, endpoint)
        self._replace(client, endpoint)
        with self.mesh.progress.step("clients and endpoints gone"):
            for payload in PAYLOADS:
                self.mesh.remove(client_name(payload))
                self.mesh.remove(endpoint_name(payload))
        with self.mesh.progress.step("nothing of the connections left on the nodes and in VPP"):
            self.problems += [
                f"left after the Close: {line}" for line in settled(lambda: idle.difference(self._idle()))
            ]
        for name in ("workload-client", "workload-endpoint"):
            self.mesh.remove(name, grace=0)  # they only sleep

    def _workload(self, name: str, node: Node) -> Workload:
        return Workload(self.mesh.name(name), node, self.mesh.start_workload(name))

    def _payload(self, number: int, payload: str, client: Workload, endpoint: Workload) -> None:
        """Connect, then measure this payload alone."""
        progress, service = self.mesh.progress, f"demo-{payload.lower()}"
        pools = f"[172.16.{number}.0/24],[fd00:172:16:{number}::/112]"
        settings = {"NSM_SERVICE_NAMES": service, "NSM_PAYLOAD": payload, "NSM_CIDR_PREFIX": pools}
        wish = {"NSM_NETWORK_SERVICES": f"kernel://{service}/nsm-{number + 1}"}
        is_sidecar = payload == ETHERNET
        ends = (
            (client.as_sidecar(), endpoint.as_sidecar())
            if is_sidecar
            else (client.by_process(), endpoint.by_path())
        )
        way = "as sidecars" if is_sidecar else f"by process id {ends[0].netns} and path {ends[1].netns}"
        with progress.step(f"{payload}: containers of client and endpoint, {way}"):
            self.mesh.start_endpoint(endpoint.node, endpoint_name(payload), ends[1], settings)
            connection = self.mesh.start_client(client.node, client_name(payload), ends[0], wish)
        flows = flows_of(connection, 4242 + number)
        before = self._tunnels()
        step = progress.step(f"{payload}: {self.seconds:.0f} s of {self.rate:.0f} Hz probes both ways")
        spaces = {"client": client.path, "endpoint": endpoint.path}
        with step, Probes(flows, rate=self.rate, seconds=self.seconds, **spaces) as running:
            verdicts = running.finish()
        self.judge(payload, verdicts)
        self._judge_tunnels(payload, verdicts, before)
        self.flows += flows

    def _replace(self, client: Workload, endpoint: Workload) -> None:
        """The agents' containers, one after the other, with every flow on its way at the full rate."""
        ends = {"client": client.path, "endpoint": endpoint.path}
        with Probes(self.flows, rate=self.rate, seconds=None, **ends) as running:
            for node in self.mesh.topology.nodes:
                with self.mesh.progress.step(f"agent of {node.name} replaced under traffic"):
                    self.mesh.replace_agent(node)
            verdicts = running.finish()
        self.judge("agents replaced", verdicts)

    def judge(self, what: str, verdicts: Sequence[Verdict]) -> None:
        """Every probe arrived, both ways, for each flow."""
        for verdict in verdicts:
            for way, name in ((verdict.forward, "to the endpoint"), (verdict.back, "to the client")):
                self.probes += way.sent
                if not way.sent or way.lost:
                    flow = f"{verdict.flow.client} - {verdict.flow.endpoint}"
                    self.problems.append(f"{what}: {way.lost} of {way.sent} probes lost {name} ({flow})")
        lost = sum(verdict.lost for verdict in verdicts)
        sent = sum(verdict.forward.sent + verdict.back.sent for verdict in verdicts)
        silence = max(way.silence_ms for verdict in verdicts for way in (verdict.forward, verdict.back))
        self.mesh.progress.say(f"  {sent} probes, {lost} lost, longest silence {silence:.0f} ms")

    def _judge_tunnels(
        self, payload: str, verdicts: Sequence[Verdict], before: Mapping[str, counters.Packets]
    ) -> None:
        arrived = sum(min(verdict.forward.received, verdict.back.received) for verdict in verdicts)
        for node, now in self._tunnels().items():
            counted = now.since(before.get(node, counters.Packets(0, 0)))
            if min(counted.rx, counted.tx) < arrived:
                self.problems.append(
                    f"{payload}: the tunnels of {node}'s VPP counted {counted.rx} in and {counted.tx} out,"
                    f" but {arrived} probes arrived"
                )

    def _tunnels(self) -> dict[str, counters.Packets]:
        nodes = self.mesh.topology.nodes
        return {node.name: counters.of_vpp(cli_of(node)) for node in nodes} if len(nodes) > 1 else {}

    def _idle(self) -> Census:
        """The nodes and their VPPs."""
        nodes = self.mesh.topology.nodes
        return census.take(spaces=[node.netns for node in nodes], vpp_clis=[cli_of(node) for node in nodes])


def client_name(payload: str) -> str:
    """The container and the identity of a payload's client."""
    return f"client-{payload.lower()}"


def endpoint_name(payload: str) -> str:
    """The container and the identity of a payload's endpoint."""
    return f"endpoint-{payload.lower()}"


def settled(question: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """The differences that stay; what goes in the background after a Close has its time."""
    deadline = time.monotonic() + SETTLE_S
    while (left := question()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
