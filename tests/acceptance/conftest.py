"""Labs for the acceptance scenarios: one per dataplane and session, nodes n1 and n2; what a test adds it removes.

``lab`` is parametrised over the dataplanes; the VPP half is marked ``vpp`` and says so when no VPP is installed.
Around every test an independent census is taken: leftovers fail it.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import census, namespaces, world
from nsmctl.lab.demonstration import POOLS, cli_of, flows_of
from nsmctl.lab.probes import Flow, Probes, Verdict
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Node, Topology
from nsmctl.lab.world import World

DATAPLANES = [
    pytest.param("linux", marks=pytest.mark.linux),
    pytest.param("vpp", marks=pytest.mark.vpp),
]


@dataclass
class Scene:
    """A running lab as a test uses it."""

    world: World
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

    def endpoint(
        self,
        name: str,
        *,
        node: Node | None = None,
        payload: str = "IP",
        services: tuple[str, ...] = (),
        **env: str,
    ) -> Path:
        """Start an endpoint; its namespace."""
        settings = {"NSM_PAYLOAD": payload, "NSM_CIDR_PREFIX": POOLS, **env}
        self.added.append(name)
        self.world.start_endpoint(name, node or self.far, services or (f"{name}-service",), settings)
        return self.netns(name)

    def client(self, name: str, *services: str, node: Node | None = None, **env: str) -> list[dict[str, Any]]:
        """Start a client of these services (interfaces nsm-1, nsm-2, …); its ``connected`` events."""
        urls = [s if "://" in s else f"kernel://{s}/nsm-{i}" for i, s in enumerate(services, 1)]
        self.added.append(name)
        return list(self.world.start_client(name, node or self.near, urls, env))

    def netns(self, workload: str) -> Path:
        """A workload's namespace."""
        return namespaces.path_of(self.world.topology.workload_space(workload))

    def remove(self, name: str) -> None:
        """End a workload."""
        self.world.remove_workload(name)
        self.added.remove(name)

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

    def census(self) -> census.Census:
        """What exists on the nodes and in their VPPs; logs and stores are files that stay."""
        nodes = self.world.topology.nodes
        clis = [cli_of(node) for node in nodes] if self.dataplane == "vpp" else []
        return census.take(spaces=[node.netns for node in nodes], mark=self.world.mark, vpp_clis=clis)

    def clean(self) -> None:
        """Remove what a test added and left, also after a failure."""
        for name in reversed(self.added):
            if name in self.world.state.workloads:
                self.world.remove_workload(name)
        self.added.clear()


def build(dataplane: str, name: str, size: int = 2, **forwarder_env: str) -> Scene:
    """A lab of its own; skips where there can be none."""
    if dataplane == "vpp" and not (os.environ.get("VPP_BINARY") or shutil.which("vpp")):
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: labs of the test suite need root")
    try:
        return Scene(world.up(Topology(name, size, dataplane), Progress(quiet=True), forwarder_env))
    except LabError as error:
        pytest.fail(f"the lab could not be built: {error}")


@pytest.fixture(scope="session", params=DATAPLANES)
def shared_lab(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """The lab of this session and dataplane; nothing of it is left at the end."""
    name = f"acc{request.param[0]}{os.getpid()}"
    before = census.take()
    scene = build(request.param, name)
    yield scene
    world.down(name, Progress(quiet=True))
    assert before.difference(census.take()) == ()


@pytest.fixture
def lab(shared_lab: Scene) -> Iterator[Scene]:
    """The lab for one test: what the test adds is removed, and nothing of it may stay."""
    before = shared_lab.census()
    try:
        yield shared_lab
    finally:
        shared_lab.clean()
    left = before.difference(shared_lab.census())
    assert left == (), "leftovers"
