"""What every cast goes through: connect, ping both ways, refresh, survive a restart, close; and what each step showed.

Nothing here asks who plays which role, so the same questions are put to ours and to Go's.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from nsmctl.errors import LabError
from nsmctl.lab import namespaces
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.probes import Verdict
from tests.scenes import carried, settled

from .casts import Mixed
from .monitor import news_of

STEPS: Final = ("connected", "pings", "refreshed", "healed", "closed", "leftovers")
RATE: Final = 1000
"""Probes a second of each address family each way, as the acceptance scenarios have them."""
LIFETIME: Final = {"NSM_MAX_TOKEN_LIFETIME": "10s", "NSM_REQUEST_TIMEOUT": "4s"}
"""Refreshed every 2 s, expired 6 s after the last refresh: a deadline longer than the token would end it at once."""
REFRESHES: Final = 3
HEAL_S: Final = 60.0
CLIENT: Final = "nsc"
ENDPOINT: Final = "nse"


@dataclass(frozen=True)
class Place:
    """Where the endpoint is, and what its service carries."""

    payload: str
    nodes: int


PLACES: Final = {
    "local-ip": Place("IP", 1),
    "local-ethernet": Place("ETHERNET", 1),
    "wireguard": Place("IP", 2),
    "vxlan": Place("ETHERNET", 2),
}


@dataclass
class Course:
    """One connection from client to endpoint on a stage; ``shown`` is filled step by step."""

    stage: Mixed
    place: Place
    shown: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, Any] = field(default_factory=dict)

    async def connect(self, settings: Mapping[str, str] = LIFETIME) -> None:
        """An endpoint, and a client that is connected to it; ``settings`` are the client's."""
        stage = self.stage
        node = stage.near if self.place.nodes == 1 else stage.far
        await asyncio.to_thread(stage.cast_endpoint, ENDPOINT, node=node, payload=self.place.payload)
        self.addresses = await asyncio.to_thread(
            stage.cast_client, CLIENT, f"{ENDPOINT}-service", node=stage.near, **settings
        )
        self.shown["connected"] = "yes"

    async def ping(self) -> None:
        """Probes of both families both ways, none lost."""
        carried(await asyncio.to_thread(self._probe))
        self.shown["pings"] = "both ways"

    async def refresh(self) -> None:
        """The near manager passes on new tokens of the client, while probes run; the interfaces stay the same."""
        before = self.interfaces()
        async with news_of(self.stage.near, CLIENT) as news:
            with self.stage.probes(flows_of(self.addresses), CLIENT, ENDPOINT, rate=RATE) as running:
                await news.expiries(REFRESHES + 1)
                verdicts = await asyncio.to_thread(running.finish)
        carried(verdicts)
        assert self.interfaces() == before, "the same interfaces"
        self.shown["refreshed"] = str(REFRESHES)

    async def heal(self, role: str) -> None:
        """The process that plays the role is killed and comes back: Requests pass through it again, probes arrive."""
        stage = self.stage
        if role in {"client", "endpoint"}:
            await asyncio.to_thread(stage.again, CLIENT if role == "client" else ENDPOINT)
        else:
            await asyncio.to_thread(stage.again_daemon, f"{stage.near.name}/{role}")
        await self.healed(role)

    async def healed(self, role: str) -> None:
        """Requests pass the near manager again, and probes arrive both ways."""
        stage = self.stage
        async with news_of(stage.near, CLIENT) as news:
            await news.expiries(3, may_close=True)
        await self.whole()
        self.shown["healed"] = role

    async def whole(self) -> None:
        """Probes of both families arrive both ways again, within HEAL_S seconds."""
        carried(await asyncio.to_thread(settled, self._probe_if_possible, _is_whole, HEAL_S))

    async def close(self) -> None:
        """The client is told to end: the manager hears of a Close, and its interfaces go."""
        async with news_of(self.stage.near, CLIENT) as news:
            await news.established()
            await asyncio.to_thread(self.stage.world.end, CLIENT)
            await news.deleted()
        for name in (CLIENT, ENDPOINT):
            assert await asyncio.to_thread(self._gone, name), f"interfaces left with {name}"
        self.shown["closed"] = "yes"

    def _probe(self) -> tuple[Verdict, ...]:
        return self.stage.probe(self.addresses, CLIENT, ENDPOINT, rate=RATE, seconds=0.5)

    def _probe_if_possible(self) -> tuple[Verdict, ...]:
        """Nothing while a workload has no address to probe from."""
        try:
            return self._probe()
        except LabError:
            return ()

    def interfaces(self) -> list[dict[str, int]]:
        """Those of the client and of the endpoint, with the index that a replaced one would not keep."""
        return [self._links(name) for name in (CLIENT, ENDPOINT)]

    def _links(self, workload: str) -> dict[str, int]:
        with namespaces.entered(self.stage.netns(workload)):
            return {name: index for index, name in socket.if_nameindex() if name != "lo"}

    def _gone(self, workload: str) -> bool:
        return not settled(lambda: self._links(workload), lambda left: not left)


def _is_whole(verdicts: tuple[Verdict, ...]) -> bool:
    return bool(verdicts) and all(verdict.lost == 0 for verdict in verdicts)


@asynccontextmanager
async def course(stage: Mixed, place: str) -> AsyncIterator[Course]:
    """A course; its leftovers are counted when the block ends, those with a Go forwarder named as its own."""
    before = stage.census()
    run = Course(stage, PLACES[place])
    yield run
    await asyncio.to_thread(stage.clean)
    ours = await asyncio.to_thread(settled, lambda: stage.of_ours(before), lambda left: not left)
    assert ours == [], "leftovers"
    theirs = stage.left(before)
    run.shown["leftovers"] = f"none (Go's forwarder: {len(theirs)})" if theirs else "none"
