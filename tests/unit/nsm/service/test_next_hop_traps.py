"""What a next hop's streams and answers mean, where the obvious reading is the wrong one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nsm.model.connection import Connection, ConnectionEvent, EventType, NetworkServiceRequest, State
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.service import next_hop
from nsm.service.hop import HopServer, Incoming
from nsm.service.next_hop import NextHop
from nsm.transport.call import Call
from tests.fakes.hops import FakeRole, Mesh, first, hop

NSE = "unix:///nse"


class Refusing:
    """A server that ends every new stream with ``code``."""

    def __init__(self, code: Code) -> None:
        self._code = code

    async def monitor(self, *_: Any) -> AsyncGenerator[ConnectionEvent, None]:
        if self._code is not Code.OK:
            raise NsmError(self._code, "not now")
        yield ConnectionEvent(EventType.UPDATE, {})

    async def stop(self) -> None:
        """Nothing runs."""


class Forgetful:
    """A server that answers on its own segment instead of the caller's."""

    def __init__(self, server: HopServer) -> None:
        self._server = server
        self.close, self.stop = server.close, server.stop

    async def request(self, request: NetworkServiceRequest, call: Call) -> Connection:
        answer = await self._server.request(request, call)
        path = replace(answer.route, index=1)
        return replace(answer, id=path.segments[1].id, path=path)


class Pathfinder:
    """A server that answers with its own path in the place of an inode, as often as ``times``: Go's ``sendfd`` does.

    The descriptor has left all the same.
    """

    def __init__(self, server: HopServer, times: int) -> None:
        self._server = server
        self._times = times
        self.asked: list[Connection] = []
        self.monitor, self.close, self.stop = server.monitor, server.close, server.stop

    async def request(self, request: NetworkServiceRequest, call: Call) -> Connection:
        self.asked.append(request.connection)
        answer = await self._server.request(request, call)
        if len(self.asked) > self._times:
            return answer
        assert answer.mechanism is not None
        return replace(
            answer, mechanism=answer.mechanism.having(**{INODE_URL: "file:///proc/thread-self/ns/net"})
        )


class World:
    """A client of one endpoint, and the states it was told."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.role = FakeRole()
        self.nse = hop("nse", self.role)
        self.mesh.add(NSE, "nse", self.nse)
        self.states: list[State] = []
        channels = self.mesh.channels("client")
        self.channel = cast("Any", channels.get(NSE))
        self.client = NextHop("client", channels, lambda _, connection: self.states.append(connection.state))

    async def connected(self, *preferences: Mechanism) -> Connection:
        deadline = asyncio.get_running_loop().time() + 5
        return await self.client.request(NSE, first(), preferences, deadline=deadline)

    async def streams(self, count: int) -> None:
        """Until that many streams have been asked for."""
        async with asyncio.timeout(10):
            while self.mesh.streams.get(NSE, 0) < count:  # noqa: ASYNC110 - the fake has only a counter
                await asyncio.sleep(0.005)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(next_hop, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(next_hop, "RETRY_DELAY", 0.01)
    made = World()
    yield made
    await made.client.stop()
    await made.nse.stop()
    made.mesh.close()


async def test_an_answer_that_stands_on_another_segment_is_refused(world: World) -> None:
    world.mesh.add(NSE, "nse", cast("HopServer", Forgetful(world.nse)))
    with pytest.raises(NsmError, match="with our place 'c-0' at index 0"):
        await world.connected()


@pytest.mark.parametrize(
    ("code", "told"), [(Code.CANCELLED, []), (Code.UNAVAILABLE, [State.DOWN])], ids=["cancelled", "away"]
)
async def test_a_cancelled_stream_says_nothing_about_connections(
    world: World, code: Code, told: list[State]
) -> None:
    await world.connected()
    await world.streams(1)
    world.mesh.add(NSE, "nse", cast("HopServer", Refusing(code)))
    world.mesh.break_streams(NSE)
    await world.streams(4)
    assert world.states == told


async def test_an_answer_that_names_a_path_is_asked_for_again_on_the_same_path(
    world: World, tmp_path: Path
) -> None:
    server = giving(world, tmp_path / "netns", times=1)
    answer = await world.connected()
    assert answer.mechanism is not None
    assert inode_of(answer) == (tmp_path / "netns").stat().st_ino
    first_time, again = server.asked
    assert len(first_time.route.segments) == 1
    assert [one.id for one in again.route.segments] == [one.id for one in answer.route.segments]
    assert again.mechanism is not None
    assert again.mechanism.get(INODE_URL) == ""
    assert len(world.nse.connections()) == 1


async def test_a_path_that_a_next_hop_insists_on_is_never_opened(world: World, tmp_path: Path) -> None:
    server = giving(world, tmp_path / "netns", times=2)
    answer = await world.connected()
    assert answer.mechanism is not None
    assert answer.mechanism.get(INODE_URL) == ""
    assert len(server.asked) == 2


def inode_of(answer: Connection) -> int:
    """Of the namespace that the answer's URL leads to from here."""
    assert answer.mechanism is not None
    return Path(answer.mechanism.get(INODE_URL).removeprefix("file://")).stat().st_ino


def giving(world: World, netns: Path, times: int) -> Pathfinder:
    """The endpoint gives a descriptor of ``netns``, and so many times its path."""

    async def give(incoming: Incoming) -> Connection:
        return replace(
            incoming.connection, mechanism=Mechanism(LOCAL, KERNEL, {INODE_URL: f"file://{netns}"})
        )

    netns.touch()
    world.role.act = give
    server = Pathfinder(world.nse, times)
    world.mesh.add(NSE, "nse", cast("HopServer", server))
    return server


async def test_our_own_descriptor_that_comes_back_is_let_go_of(world: World, tmp_path: Path) -> None:
    """A Go manager returns the client's own descriptor with every answer."""

    async def echo(incoming: Incoming) -> Connection:
        return replace(incoming.connection, mechanism=incoming.preferences[0])

    world.role.act = echo
    netns = tmp_path / "netns"
    netns.touch()
    await world.connected(Mechanism(LOCAL, KERNEL, {INODE_URL: f"file://{netns}"}))
    assert world.channel.back == {}
