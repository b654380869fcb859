"""What our chain says on the wire, against transcripts that are checked in.

``NSM_UPDATE_GOLDEN=1 pytest tests/interop/test_transcripts.py`` writes them anew; the difference belongs into the
review.
"""

import asyncio
import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from nsm.model.connection import Connection
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path as ConnectionPath
from nsm.model.path import PathSegment
from nsm.service.config import NsmSettings
from nsm.service.daemon import open_node
from nsm.service.next_hop import NextHop
from nsm.transport import wirelog
from nsmctl.lab.topology import Node

from . import casts, peers
from .casts import Cast, Mixed
from .conftest import for_session
from .recorder import MONITOR, WATCHES, Line, lines_of, transcript, views

GOLDEN: Final = Path(__file__).parent / "golden"
CLIENT: Final = "client"
ENDPOINT: Final = "server"
SECONDS: Final = 15.0

GO: Final = Cast("ours", ("registry", "manager", "endpoint"), everywhere=True)
"""Every hop has one of ours at one end at least: what a Go component says is written down by its neighbours."""


@dataclass
class Recording:
    """A lab whose daemons of ours all write to one log."""

    scene: Mixed
    log: Path

    @contextmanager
    def phase(self, phases: dict[str, list[Line]], title: str) -> Iterator[None]:
        """What begins while the block runs is of this phase."""
        since = len(lines_of([self.log]))
        yield
        phases[title] = lines_of([self.log])[since:]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(casts.OURS, id="ours", marks=pytest.mark.linux),
        pytest.param(GO, id="Go", marks=[*peers.needs(*GO.peers), pytest.mark.minutes, pytest.mark.linux]),
    ],
)
def recording(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Recording]:
    log = tmp_path_factory.mktemp("wire") / "log.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSM_WIRE_LOG", str(log))
        for scene in for_session("linux", "wire", request.param):
            wirelog.start(log, CLIENT)
            yield Recording(scene, log)
            wirelog.stop()


@pytest.mark.parametrize("place", ["local", "remote"])
def test_the_wire_is_as_in_the_golden_transcript(recording: Recording, place: str) -> None:
    scene = recording.scene
    far = scene.near if place == "local" else scene.far
    phases: dict[str, list[Line]] = {}
    try:
        with recording.phase(phases, "an endpoint registers"):
            scene.cast_endpoint(ENDPOINT, node=far, payload="IP", NSM_CIDR_PREFIX="172.16.0.0/24")
        scene.workload(CLIENT)
        chain = hops(scene.near, far)
        asyncio.run(life(recording, chain, phases))
        with recording.phase(phases, "the endpoint ends"):
            scene.remove(ENDPOINT)
    finally:
        scene.clean()
    name = place if scene.cast == casts.OURS else f"{place}-with-go"
    compare(name, transcript(phases, (*chain, "registry"), ENDPOINT, fixed(scene)))


async def life(recording: Recording, chain: tuple[str, ...], phases: dict[str, list[Line]]) -> None:
    """Request, refresh and Close of a client that watches its connection."""
    near = recording.scene.near
    loop = asyncio.get_running_loop()
    settings = NsmSettings(name=CLIENT, identity_dir=str(near.identities), dial_timeout=5.0)
    async with open_node(settings) as node:
        told: list[Connection] = []
        hop = NextHop(CLIENT, node.channels, lambda _, connection: told.append(connection))
        netns = f"file://{recording.scene.netns(CLIENT)}"
        prefers = Mechanism(LOCAL, KERNEL, {INODE_URL: netns, INTERFACE_NAME: "nsm-1"})
        since = len(lines_of([recording.log]))
        with recording.phase(phases, "Request"):
            answer = await hop.request(near.manager, first(), (prefers,), deadline=loop.time() + SECONDS)
            await watched(recording, chain, since)
        with recording.phase(phases, "refresh"):
            answer = await hop.request(near.manager, answer, (prefers,), deadline=loop.time() + SECONDS)
        phases[WATCHES] = lines_of([recording.log])[since:]
        with recording.phase(phases, "Close"):
            await hop.close(near.manager, answer, deadline=loop.time() + SECONDS)
        await hop.stop()


def first() -> Connection:
    path = ConnectionPath(0, (PathSegment(name=CLIENT, id=f"{CLIENT}-0"),))
    return Connection(id=f"{CLIENT}-0", network_service=f"{ENDPOINT}-service", path=path)


async def watched(recording: Recording, chain: tuple[str, ...], since: int) -> None:
    """Until each hop but the last has the first event of the stream to its next one."""
    wanted = set(pairwise(chain))
    async with asyncio.timeout(30):
        while True:
            found = views(lines_of([recording.log])[since:])
            streams = [view for view in found if view.request["method"] == MONITOR and view.answers]
            if wanted <= {(view.caller, view.callee) for view in streams}:
                return
            await asyncio.sleep(0.05)


def hops(near: Node, far: Node) -> tuple[str, ...]:
    chain = [CLIENT, f"manager-{near.name}", f"forwarder-{near.name}"]
    if far != near:
        chain += [f"manager-{far.name}", f"forwarder-{far.name}"]
    return (*chain, ENDPOINT)


def fixed(scene: Mixed) -> dict[str, str]:
    """What else is another each time: the lab's name, what a random name ends with, and what packets are counted."""
    return {
        scene.world.topology.name: "lab",
        r"(own_port: )'\d+'": r"\1<port>",
        r"(?<=server-ser-)\w{4}": "<4>",
        r"((?:[rt]x_(?:bytes|packets)|drops): )'\d+'": r"\1<count>",
    }


def compare(name: str, text: str) -> None:
    """Fails with the difference to the golden file and how to renew it."""
    golden = GOLDEN / f"{name}.md"
    if os.environ.get("NSM_UPDATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
        return
    known = golden.read_text()
    difference = "".join(
        difflib.unified_diff(
            known.splitlines(keepends=True), text.splitlines(keepends=True), f"golden/{name}.md", "this run"
        )
    )
    assert not difference, (
        f"the wire is not as it was:\n{difference}\nIf that is meant, write the transcripts anew:\n"
        "NSM_UPDATE_GOLDEN=1 pytest tests/interop/test_transcripts.py"
    )
