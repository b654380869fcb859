"""The labs of a soak: who plays which role in each, the connections that last, and what must stay as it was."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from nsmctl.lab import identities
from nsmctl.lab.census import Census
from nsmctl.lab.demonstration import cli_of, flows_of
from nsmctl.lab.probes import Probes
from nsmctl.lab.topology import Node
from nsmctl.lab.underlay import UPLINK
from perf.plan import PLACES
from perf.soak.held import Held, held
from perf.stage import POOLS
from tests.interop.casts import GO_CONTROL_PLANE, OURS, Cast, Mixed
from tests.scenes import links, settled

RATE: Final = 20
"""Probes a second over each lasting connection, each family and way."""
LIFETIME: Final = {"NSM_MAX_TOKEN_LIFETIME": "45s", "NSM_REQUEST_TIMEOUT": "15s"}
"""Of lasting connections: several refreshes a minute."""
SVID_TTL: Final = "8h"
"""No SVID is renewed while what is held is compared: each renewal has every peer dial anew, and there are that many
connections more for some minutes (one of an hour is renewed just when a run of half an hour ends)."""
SETTLE_S: Final = 90.0
"""A killed client's connection is closed when its token has expired, and what it had is removed after that."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One lab: ``dataplane`` of our forwarders, and the cast."""

    name: str
    dataplane: str
    cast: Cast


PLANS: Final = (
    Plan("our forwarders between Go's control plane", "vpp", GO_CONTROL_PLANE),
    Plan("our control plane and forwarders", "linux", OURS),
)
"""Workloads are of both makes in both."""


@dataclass(frozen=True, slots=True)
class Lasting:
    """A connection that is there all the time, with its probes and interfaces."""

    client: str
    endpoint: str
    probes: Probes
    interfaces: Sequence[Mapping[str, int]]


@dataclass
class Lab:
    """A lab that is soaked."""

    plan: Plan
    stage: Mixed
    lasting: list[Lasting] = field(default_factory=list)
    before: Census | None = None

    @property
    def name(self) -> str:
        """Of its dataplane."""
        return self.plan.dataplane

    def service(self, place: str, make: str) -> str:
        """The service of a lasting endpoint."""
        return f"{make.lower()}-{place}-service"

    def furnish(self, probing: ExitStack) -> None:
        """At every place an endpoint of each make that lasts, and one connection between different makes."""
        for node in self.stage.world.topology.nodes:
            identities.set_svid_ttl(node, SVID_TTL)
        for number, place in enumerate(PLACES):
            makes = ("ours", "Go") if number % 2 == 0 else ("Go", "ours")
            for make in makes:
                self.endpoint(f"{make.lower()}-{place}", make, place)
            client, server = f"last-{place}", f"{makes[1].lower()}-{place}"
            addresses = self.client(client, makes[0], self.service(place, makes[1]), **LIFETIME)
            probes = self.stage.probes(flows_of(addresses), client, server, rate=RATE)
            self.lasting.append(
                Lasting(client, server, probing.enter_context(probes), self._interfaces(client))
            )
        self.before = self.stage.census()

    def endpoint(self, name: str, make: str, place: str) -> None:
        """Start an endpoint of that make."""
        stage = self.stage
        node = stage.near if place == "local" else stage.far
        begin = stage.endpoint if make == "ours" else stage.go_endpoint
        begin(name, node=node, payload=PLACES[place], NSM_CIDR_PREFIX=POOLS)

    def client(self, name: str, make: str, service: str, **env: str) -> Mapping[str, Any]:
        """Start a client of that make; its addresses."""
        if make == "Go":
            return self.stage.go_client(name, service, node=self.stage.near, **env).addresses
        return self.stage.client(name, service, env=env)[0]

    # judgement

    def holdings(self) -> dict[str, Held]:
        """What every process of ours holds that is there all the time."""
        state = self.stage.world.state
        workloads = {one.client for one in self.lasting} | {one.endpoint for one in self.lasting}
        found = {}
        for name, process in state.processes.items():
            if self._is_ours(name) and ("/" in name or name in workloads):
                found[f"{self.name} {name}"] = held(process)
        return found

    def _is_ours(self, name: str) -> bool:
        node, _, role = name.partition("/")
        if not role:
            return name not in self.stage.played
        return role != "vpp" and not self.plan.cast.is_go(role, self.stage.world.topology.node(node))

    def problems(self) -> list[str]:
        """What is not as it was when only the lasting connections were there, given time to settle."""
        before = self.before
        assert before is not None
        left = settled(lambda: self.stage.left(before), lambda left: not left, SETTLE_S)
        found = [f"{self.name}: {line}" for line in left]
        found += [
            f"{self.name}: {line}" for node in self.stage.world.topology.nodes for line in self._vpp(node)
        ]
        for one in self.lasting:
            if self._interfaces(one.client) != one.interfaces:
                found.append(f"{self.name}: {one.client} has other interfaces than at first")
        return found

    def _vpp(self, node: Node) -> Iterator[str]:
        """Two interfaces for each lasting connection in a node's VPP: of its ends here, or one and a tunnel."""
        if self.plan.dataplane != "vpp":
            return
        is_far = node != self.stage.near
        wanted = 2 * sum(1 for place in PLACES if place != "local" or not is_far)
        asked = ["vppctl", "-s", str(cli_of(node)), "show", "interface"]
        shown = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60).stdout
        names = [line.split()[0] for line in shown.splitlines()[1:] if line[:1].strip()]
        there = [name for name in names if name not in {"local0", f"host-{UPLINK}"}]
        if len(there) != wanted:
            yield f"VPP of {node.name} has {len(there)} interfaces for connections, not {wanted}: {there}"

    def _interfaces(self, client: str) -> list[Mapping[str, int]]:
        return [links(self.stage.netns(client))]

    def lost(self) -> list[str]:
        """Lasting connections that lost probes, told at the end."""
        return [
            f"{self.name}: {one.client} lost {verdict.lost} probes of {verdict.forward.sent + verdict.back.sent}"
            for one in self.lasting
            for verdict in one.probes.finish()
            if verdict.lost or not verdict.forward.sent
        ]
