"""SPIRE under our whole lab: SVIDs are renewed all the time, SPIRE itself goes away, its CA is replaced; 0 lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.topology import TRUST_DOMAIN
from tests.scenes import carried

from . import matrix, peers
from .casts import Cast, Mixed, played_by
from .course import CLIENT, ENDPOINT, PLACES, RATE, Course, course
from .monitor import news_of

OURS = Cast("ours", on_spire=True)
RENEWALS = 2


@dataclass
class Renewals:
    """The SVIDs on a connection's way, and where the agents' logs ended when it began to count."""

    stage: Mixed
    since: dict[str, int]

    @classmethod
    def of(cls, stage: Mixed) -> "Renewals":
        """From now on."""
        return cls(
            stage, {node.name: stage.mark_log(agent(node.name)) for node in stage.world.topology.nodes}
        )

    async def each(self, run: Course, times: int) -> None:
        """Every identity on the way of the course's connection has been renewed so often."""
        nodes = self.stage.world.topology.nodes[: run.place.nodes]
        wanted = [
            (node.name, f"{role}/{role}-{node.name}") for node in nodes for role in ("manager", "forwarder")
        ]
        wanted += [
            ("n1", "registry/registry"),
            ("n1", f"client/{CLIENT}"),
            (nodes[-1].name, f"endpoint/{ENDPOINT}"),
        ]
        for node, identity in wanted:
            await asyncio.to_thread(self._renewed, node, identity, times)

    def _renewed(self, node: str, identity: str, times: int) -> None:
        texts = ("Renewing X509-SVID", f'"spiffe://{TRUST_DOMAIN}/{identity}"')
        peers.wait_lines(self.stage.process(agent(node)), *texts, count=times, since=self.since[node])


def agent(node: str) -> str:
    """A node's agent in the lab."""
    return f"{node}/spire-agent"


@asynccontextmanager
async def kept(stage: Mixed, place: str) -> AsyncIterator[Course]:
    """A connection, probed while the block runs; none is lost, and its refreshes go on afterwards."""
    async with course(stage, place) as run:
        await run.connect()
        with stage.probes(flows_of(run.addresses), CLIENT, ENDPOINT, rate=RATE) as running:
            yield run
            async with news_of(stage.near, CLIENT) as news:
                await news.expiries(3)
            carried(await asyncio.to_thread(running.finish))
        run.shown["pings"] = "both ways"
        run.shown["refreshed"] = "2"
        await run.close()


@pytest.mark.timeout(400)
@pytest.mark.quick("all-ours-on-SPIRE-local-ip")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_a_connection_outlives_its_svids(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        await Renewals.of(stage).each(run, RENEWALS)
        run.shown["healed"] = f"{RENEWALS} SVIDs each"
