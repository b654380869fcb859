"""A connection under 1 kHz of probes while SVIDs are renewed, SPIRE goes away, CAs are replaced: nothing is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from nsmctl.lab.demonstration import flows_of
from tests.scenes import carried

from . import peers
from .attested import spire_of
from .casts import Mixed
from .course import CLIENT, ENDPOINT, LIFETIME, RATE, Course, course
from .monitor import news_of

NEWCOMER: Final = "newcomer"


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
        world = spire_of(self.stage.world)
        domain = world.registrations_of(world.topology.node(node)).trust_domain
        peers.wait_lines(
            self.stage.process(agent(node)),
            "Renewing X509-SVID",
            f'"spiffe://{domain}/{identity}"',
            count=times,
            timeout=30.0 + 20.0 * times,
            since=self.since[node],
        )


def agent(node: str) -> str:
    """A node's agent in the lab."""
    return f"{node}/spire-agent"


async def refreshes(stage: Mixed, times: int) -> None:
    """Requests of the connection's client pass the near manager so often, each with a token of its own."""
    async with news_of(stage.near, CLIENT) as news:
        await news.expiries(times + 1)


@asynccontextmanager
async def kept(stage: Mixed, place: str) -> AsyncIterator[Course]:
    """A connection, probed while the block runs: no packet is lost.

    Afterwards its refreshes go on on the same interfaces, and a client that comes now is connected as well.
    """
    async with course(stage, place) as run:
        await run.connect()
        before = run.interfaces()
        with stage.probes(flows_of(run.addresses), CLIENT, ENDPOINT, rate=RATE) as running:
            yield run
            await refreshes(stage, 2)
            verdicts = await asyncio.to_thread(running.finish)
        carried(verdicts)
        assert run.interfaces() == before, "the same interfaces"
        run.shown["pings"] = "both ways"
        run.shown["refreshed"] = "2"
        await _another(stage)
        await run.close()


async def _another(stage: Mixed) -> None:
    """A client that is new to the mesh and to SPIRE; gone again afterwards."""
    addresses = await asyncio.to_thread(
        stage.cast_client, NEWCOMER, f"{ENDPOINT}-service", node=stage.near, **LIFETIME
    )
    carried(await asyncio.to_thread(stage.probe, addresses, NEWCOMER, ENDPOINT, rate=RATE, seconds=0.5))
    await asyncio.to_thread(stage.remove, NEWCOMER)
