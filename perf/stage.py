"""A lab to measure in: one endpoint with room for many connections, and namespaces for clients driven from here."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nsmctl.lab import census, identities, namespaces, world
from nsmctl.lab.census import Census
from nsmctl.lab.demonstration import cli_of
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Node, Topology
from nsmctl.lab.world import World

POOLS: Final = "[172.16.0.0/16],[fd00:172:16::/112]"
"""Room for 32,768 connections of both families."""


@dataclass
class Stage:
    """A running lab; what is added is removed by ``clear``."""

    world: World
    _clients: list[tuple[Node, str]] = field(default_factory=list)
    _endpoints: list[str] = field(default_factory=list)

    @property
    def topology(self) -> Topology:
        """The lab's."""
        return self.world.topology

    @property
    def near(self) -> Node:
        """Where the clients are."""
        return self.topology.nodes[0]

    @property
    def far(self) -> Node:
        """The last node."""
        return self.topology.nodes[-1]

    @property
    def is_vpp(self) -> bool:
        """Whether the nodes' dataplane is VPP."""
        return self.topology.dataplane == "vpp"

    def netns(self, workload: str) -> Path:
        """A workload's namespace."""
        return namespaces.path_of(self.topology.workload_space(workload))

    def endpoint(self, name: str, node: Node, payload: str = "IP", **env: str) -> str:
        """Start an endpoint; the name of its only service."""
        service = f"{name}-service"
        settings = {"NSM_PAYLOAD": payload, "NSM_CIDR_PREFIX": POOLS, **env}
        self.world.start_endpoint(name, node, [service], settings)
        self._endpoints.append(name)
        return service

    def client(self, name: str, *identity_names: str) -> Path:
        """A namespace called ``name`` on the near node, and identities for whoever asks on its behalf."""
        self.world.workload_space(name)
        for identity in identity_names or (name,):
            identities.register(self.near, "client", identity)
            self._clients.append((self.near, identity))
        self._clients.append((self.near, name))
        return self.netns(name)

    def pid(self, daemon: str) -> int:
        """The process of ``n1/forwarder`` and the like."""
        return self.world.state.processes[daemon].pid

    def census(self) -> Census:
        """Everything that exists on the nodes and in their VPPs."""
        clis = [cli_of(node) for node in self.topology.nodes] if self.is_vpp else []
        spaces = [node.netns for node in self.topology.nodes]
        found = census.take(spaces=spaces, mark=self.world.mark, vpp_clis=clis, names=self.is_ours)
        return found.without_ready_pairs()

    def is_ours(self, name: str) -> bool:
        """Whether a name that all programs of the machine share belongs to this lab."""
        return name.startswith(self.topology.name)

    def left_since(self, before: Census) -> tuple[str, ...]:
        """What is there that was not, and stays."""
        return left(before, self.census)

    def clear(self) -> None:
        """Remove every endpoint and client."""
        for node, name in reversed(self._clients):
            identities.unregister(node, name)
            namespaces.delete(self.topology.workload_space(name))
        self._clients.clear()
        for name in reversed(self._endpoints):
            if name in self.world.state.workloads:
                self.world.remove_workload(name)
        self._endpoints.clear()


def left(before: Census, take: Callable[[], Census], patience: float = 60.0) -> tuple[str, ...]:
    """What has come or gone since ``before``; asked again for ``patience`` s: some is cleared after the answer."""
    limit = time.monotonic() + patience
    while (found := before.difference(take())) and time.monotonic() < limit:
        continue  # a census takes long enough for a pause
    return found


@contextmanager
def lab(
    topology: Topology, progress: Progress, forwarder_env: Mapping[str, str] | None = None
) -> Iterator[Stage]:
    """A lab for as long as the context lasts. LabError if it cannot be built."""
    stage = Stage(world.up(topology, progress, forwarder_env))
    try:
        yield stage
    finally:
        world.down(topology.name, Progress(quiet=True))
