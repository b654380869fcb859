"""The chains that are compared, and one connection's two ends on each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsmctl.lab.topology import Node, Topology
from perf.plan import PLACES
from perf.stage import POOLS
from perf.worlds import ReleasedVpp, played
from tests.interop.casts import OURS, Cast, CastWorld, Mixed


@dataclass(frozen=True, slots=True)
class Chain:
    """Registry, managers, forwarders and endpoints of one make; the client is always this process.

    ``only_at_once``: what is special about it shows when many ask at one moment.
    """

    name: str
    cast: Cast
    dataplane: str
    kind: type[CastWorld] = CastWorld
    only_at_once: bool = False


GO: Final = Chain("Go", Cast("Go"), "vpp")
CHAINS: Final = (
    GO,
    Chain("Go, VPP as released", GO.cast, "vpp", ReleasedVpp, only_at_once=True),
    Chain("vpp", OURS, "vpp"),
    Chain("linux", OURS, "linux"),
)
"""26.06 stops for ever when 16 links have packets at one moment (docs/vpp-notes.md), so Go's is measured both ways."""


@dataclass(frozen=True, slots=True)
class Running:
    """A chain in its lab."""

    chain: Chain
    stage: Mixed

    @property
    def near(self) -> Node:
        """Where the clients are."""
        return self.stage.near

    def ends(self, place: str) -> "Ends":
        """An endpoint at that place, and a namespace with an identity for its clients."""
        node = self.stage.near if place == "local" else self.stage.far
        ends = Ends(f"server-{place}", f"caller-{place}", self.stage)
        self.stage.cast_endpoint(ends.server, node=node, payload=PLACES[place], NSM_CIDR_PREFIX=POOLS)
        self.stage.workload(ends.client)
        return ends


@dataclass(frozen=True, slots=True)
class Ends:
    """Names of the workloads at both ends."""

    server: str
    client: str
    stage: Mixed

    @property
    def service(self) -> str:
        """What the server serves."""
        return f"{self.server}-service"

    @property
    def server_space(self) -> Path:
        """The server's namespace."""
        return self.stage.netns(self.server)

    @property
    def client_space(self) -> Path:
        """The clients' namespace."""
        return self.stage.netns(self.client)


@contextmanager
def running(chain: Chain, *, size: int, mtu: int) -> Iterator[Running]:
    """The chain in a lab of ``size`` nodes on a cable of ``mtu`` bytes. LabError if it cannot be built."""
    topology = Topology(f"vs{CHAINS.index(chain)}x{os.getpid()}", size, chain.dataplane, mtu)
    with played(topology, chain.cast, chain.kind) as stage:
        yield Running(chain, stage)
