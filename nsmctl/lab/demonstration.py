"""The demonstration: packets of a workload on n1 reach an endpoint on n2 through two forwarders, for each payload.

Every claim is checked by somebody who does not profit from it: the probes' receivers say what arrived, the tunnels'
own counters say that it went through them, the cut shows that there is no other way, the census that nothing stays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from forwarder_vpp.dataplane.vpp.profile import segment_prefix
from nsmctl.lab import census, counters, namespaces, throughput
from nsmctl.lab.counters import Packets
from nsmctl.lab.probes import Flow, Probes, Verdict
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Node, Topology, mark
from nsmctl.lab.world import World, port, underlay

NEEDED_EACH_WAY: Final = 9_900
CUT_S: Final = 1.0
SERVICE: Final = "demo"
INTERFACE: Final = "nsm-1"
POOLS: Final = "[172.16.0.0/24],[fd00:172:16::/112]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one payload showed; ``problems`` is empty if everything held."""

    payload: str
    connection: Mapping[str, Any]
    probes: Sequence[Verdict]
    tunnels: Mapping[str, Packets]
    gbit_s: float
    cut: Sequence[Verdict]
    dropped_by_cut: int
    problems: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "payload": self.payload,
            "connection": dict(self.connection),
            "probes": [verdict.json() for verdict in self.probes],
            "tunnel_packets": {node: {"rx": p.rx, "tx": p.tx} for node, p in self.tunnels.items()},
            "tcp_gbit_s": round(self.gbit_s, 3),
            "cut": [verdict.json() for verdict in self.cut],
            "dropped_by_cut": self.dropped_by_cut,
            "problems": list(self.problems),
        }


@dataclass
class Demonstration:
    """Runs the payloads one after the other in one lab."""

    world: World
    progress: Progress
    seconds: float = 10.0
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def topology(self) -> Topology:
        """The lab's."""
        return self.world.topology

    def payload(self, payload: str) -> Outcome:
        """Endpoint on the last node, client on the first, probes, throughput, cut, both away again."""
        server, client = f"{payload.lower()}-endpoint", f"{payload.lower()}-client"
        near, far = self.topology.nodes[0], self.topology.nodes[-1]
        service = f"{SERVICE}-{payload.lower()}"
        settings = {"NSM_PAYLOAD": payload, "NSM_CIDR_PREFIX": POOLS}
        with self.progress.step(f"{payload}: an endpoint of service {service!r} on {far.name}"):
            self.world.start_endpoint(server, far, [service], settings)
        with self.progress.step(f"{payload}: a client on {near.name} connected to it by name"):
            url = f"kernel://{service}/{INTERFACE}"
            # Without the liveness check: the cut shall be seen, not healed away.
            quiet = {"NSM_LIVENESS_CHECK_ENABLED": "false"}
            connection = self.world.start_client(client, near, [url], quiet)[0]
        outcome = self._measure(payload, connection, client, server)
        with self.progress.step(f"{payload}: client and endpoint gone"):
            self.world.remove_workload(client)
            self.world.remove_workload(server)
        self.outcomes.append(outcome)
        return outcome

    def _measure(self, payload: str, connection: Mapping[str, Any], client: str, server: str) -> Outcome:
        ends = {"client": self._netns(client), "endpoint": self._netns(server)}
        flows = flows_of(connection)
        before = self._tunnels(ends)
        step = self.progress.step(f"{payload}: {self.seconds:.0f} s of 1 kHz probes both ways")
        with step, Probes(flows, rate=1000, seconds=self.seconds, **ends) as running:
            probes = running.finish()
        tunnels = {node: now.since(before[node]) for node, now in self._tunnels(ends).items()}
        with self.progress.step(f"{payload}: TCP throughput"):
            gbit_s = throughput.tcp(address=flows[0].endpoint, **ends)
        with self.progress.step(f"{payload}: tunnel cut for {CUT_S:.0f} s"):
            cut, dropped = self._cut(flows, ends)
        problems = tuple(judge(probes, tunnels, cut, dropped, self.seconds))
        return Outcome(payload, connection, probes, tunnels, gbit_s, cut, dropped, problems)

    def _cut(self, flows: Sequence[Flow], ends: Mapping[str, Any]) -> tuple[Sequence[Verdict], int]:
        cable = underlay(self.topology)
        cable.cut_tunnels(*(port(node).name for node in self.topology.nodes))
        try:
            with Probes(flows, rate=1000, seconds=CUT_S, **ends) as running:
                verdicts = running.finish()
        finally:
            dropped = cable.heal_tunnels()
        return verdicts, sum(dropped.values())

    def _netns(self, workload: str) -> Any:
        return namespaces.path_of(self.world.state.workloads[workload].space)

    def _tunnels(self, ends: Mapping[str, Any]) -> dict[str, Packets]:
        near, far = self.topology.nodes[0], self.topology.nodes[-1]
        if self.topology.dataplane == "vpp":
            return {node.name: counters.of_vpp(cli_of(node)) for node in (near, far)}
        return {near.name: counters.of_kernel(ends["client"]), far.name: counters.of_kernel(ends["endpoint"])}


def cli_of(node: Node) -> Any:
    """The CLI socket of a node's VPP."""
    return node.vpp_directory / "cli.sock"


def flows_of(connection: Mapping[str, Any], port_number: int = 4242) -> list[Flow]:
    """One flow for each address family of a ``connected`` event, paired in order."""
    clients = [str(a).partition("/")[0] for a in connection["src_ip_addrs"]]
    endpoints = [str(a).partition("/")[0] for a in connection["dst_ip_addrs"]]
    pairs = []
    for version in (".", ":"):
        mine = [a for a in clients if version in a]
        theirs = [a for a in endpoints if version in a]
        pairs += [Flow(c, e, port_number) for c, e in zip(mine, theirs, strict=False)]
    return pairs


def judge(
    probes: Sequence[Verdict],
    tunnels: Mapping[str, Packets],
    cut: Sequence[Verdict],
    dropped: int,
    seconds: float,
) -> list[str]:
    """Everything that is not as promised, one sentence each."""
    needed = min(NEEDED_EACH_WAY, int(NEEDED_EACH_WAY * seconds / 10))
    problems = []
    for verdict in probes:
        for way, name in ((verdict.forward, "to the endpoint"), (verdict.back, "to the client")):
            if way.received < needed or way.lost:
                problems.append(
                    f"{way.received} of {way.sent} probes arrived {name}; needed {needed}, none lost"
                )
    arrived = sum(min(v.forward.received, v.back.received) for v in probes)
    for node, packets in tunnels.items():
        if min(packets.rx, packets.tx) < arrived:
            problems.append(
                f"the tunnel on {node} counted {packets.rx} in and {packets.tx} out, probes {arrived}"
            )
    for verdict in cut:
        if verdict.forward.received or verdict.back.received:
            problems.append("probes arrived although the tunnel was cut: they did not go through it")
        if not verdict.forward.sent:
            problems.append("no probe was sent while the tunnel was cut")
    if not dropped:
        problems.append("the cut dropped no tunnel packet")
    return problems


def is_of(topology: Topology) -> Callable[[str], bool]:
    """Whether a name that all programs share (namespace, shared memory) belongs to this lab or its VPPs."""
    prefixes = (topology.name, *(segment_prefix(node.vpp_directory) for node in topology.nodes))
    return lambda name: name.startswith(prefixes)


def count(topology: Topology) -> census.Census:
    """The machine outside the lab, for before and after."""
    return census.take(mark=mark(topology.name), directories=[topology.directory], names=is_of(topology))
