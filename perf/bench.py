"""Runs the columns: for each a lab, in it every place, and a second lab for each further MTU of the cable."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nsmctl.errors import LabError
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Topology
from perf.control import growth
from perf.control.driver import Driver, driver
from perf.control.work import Work, idle
from perf.dataplane import packets
from perf.figures import Figure, pressure
from perf.plan import PLACES, Column, Effort
from perf.stage import Stage, lab

SERVER, CLIENT = "server", "caller"
OTHER_SERVER, OTHER_CLIENT = "server2", "caller2"


class Bench:
    """Collects the figures of the columns it is run for."""

    def __init__(self, effort: Effort, progress: Progress) -> None:
        self.figures: list[Figure] = []
        self._effort = effort
        self._progress = progress

    def column(self, column: Column) -> None:
        """Everything of one column. LabError when its lab cannot be had."""
        with _surroundings(column) as env:
            for mtu in self._effort.mtus if column.carries_packets else self._effort.mtus[:1]:
                size = 2 if column.places != ("local",) else 1
                topology = Topology(f"bench{os.getpid()}", size, column.dataplane, mtu)
                with lab(topology, Progress(quiet=True), env) as stage:
                    self._progress.say(f"{column.name}: a lab with MTU {mtu} is up")
                    self._lab(stage, column, mtu)

    def _lab(self, stage: Stage, column: Column, mtu: int) -> None:
        is_first = mtu == self._effort.mtus[0]
        if is_first:
            self.figures += idle(stage, column.name)
        for place in column.places:
            node = stage.near if place == "local" else stage.far
            service = stage.endpoint(SERVER, node, PLACES[place])
            stage.client(CLIENT)
            try:
                asyncio.run(self._place(Place(stage, column, place, mtu), service, control=is_first))
            finally:
                stage.clear()

    async def _place(self, place: "Place", service: str, *, control: bool) -> None:
        async with driver(place.stage.near, [CLIENT], service, place.client) as calls:
            if place.column.carries_packets:
                with self._progress.step(f"{place}: packets at MTU {place.mtu}"):
                    self.figures += await self._packets(place, calls)
            if control:
                await self._control(place, calls)

    async def _control(self, place: "Place", calls: Driver) -> None:
        work = Work(place.stage, calls, place.cell, self._effort)
        with self._progress.step(f"{place}: one by one"):
            self.figures += await work.one_by_one()
        if place.name == "local":
            with self._progress.step(f"{place}: with pauses"):
                self.figures += await work.unhurried()
        with self._progress.step(f"{place}: {self._effort.at_once} at once"):
            self.figures += await work.at_once()
        with self._progress.step(f"{place}: counted by strace"):
            self.figures += await work.traced()
        if place.name == "local":
            await self._growth(place, work, calls)

    async def _growth(self, place: "Place", work: Work, calls: Driver) -> None:
        """With ever more connections of other workloads, then with as many of the two that are measured."""
        levels = self._effort.levels(place.column)
        service = await asyncio.to_thread(place.stage.endpoint, OTHER_SERVER, place.stage.near)
        netns = await asyncio.to_thread(place.stage.client, OTHER_CLIENT)
        async with driver(place.stage.near, [OTHER_CLIENT], service, netns) as others:
            before = growth.memory(place.stage)
            with self._progress.step(f"{place}: up to {levels[-1]} connections of others live"):
                self.figures += await growth.at_levels(work, others, levels, "live")
            after = growth.memory(place.stage)
            self.figures += growth.per_connection(place.cell, before, after, len(others.connections))
            await growth.drain(others)
        with self._progress.step(f"{place}: up to {levels[-1]} connections of their own live"):
            self.figures += await growth.at_levels(work, calls, levels, "live at both ends")
            await growth.drain(calls)

    async def _packets(self, place: "Place", calls: Driver) -> list[Figure]:
        sample = await calls.request(-1)
        if sample.error:
            raise LabError(f"{place}: {sample.error}")
        address = calls.flows()[0].endpoint
        try:
            return await asyncio.to_thread(self._loaded, place, address)
        finally:
            await calls.close(-1)

    def _loaded(self, place: "Place", address: str) -> list[Figure]:
        """Ping, then TCP, over the one connection there is."""
        effort, cell = self._effort, replace(place.cell, pressure=pressure())
        average, worst = packets.ping(client=place.client, address=address, count=effort.pings)
        rate = packets.tcp(
            client=place.client, endpoint=place.server, address=address, seconds=effort.seconds
        )
        ping = replace(cell, work=f"ping, MTU {place.mtu}", unit="ms", value=average, spread=worst)
        return [
            replace(ping, samples=effort.pings),
            replace(cell, work=f"TCP, MTU {place.mtu}", unit="Gbit/s", value=rate),
        ]


@dataclass(frozen=True, slots=True)
class Place:
    """One place of one column in its lab."""

    stage: Stage
    column: Column
    name: str
    mtu: int

    def __str__(self) -> str:
        """``vpp wireguard``."""
        return f"{self.column.name} {self.name}"

    @property
    def cell(self) -> Figure:
        """An empty figure of this place."""
        return Figure(self.name, "", self.column.name, "", 0.0)

    @property
    def client(self) -> Path:
        """The client's namespace."""
        return self.stage.netns(CLIENT)

    @property
    def server(self) -> Path:
        """The endpoint's namespace."""
        return self.stage.netns(SERVER)


@contextmanager
def _surroundings(column: Column) -> Iterator[Mapping[str, str]]:
    """The forwarder's environment; for ``fake`` with a fake VPP that runs meanwhile."""
    if column.name != "fake":
        yield column.env
        return
    with TemporaryDirectory(prefix="nsm-perf-") as folder:
        socket = Path(folder) / "api.sock"
        words = [sys.executable, "-m", "perf.fake_vpp", str(socket)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as fake:
            try:
                assert fake.stdout is not None
                fake.stdout.readline()
                yield {**column.env, "NSM_VPP_API_SOCKET": str(socket), "NSM_VPP_INIT": "NONE"}
            finally:
                fake.terminate()
