"""Client, middle hop and endpoint over unix sockets: TLS, real tokens and policies, descriptors, streams."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path as FilePath

import pytest
from structlog.testing import capture_logs

from nsm.model.connection import Connection, State
from nsm.model.context import ConnectionContext
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment
from nsm.service.daemon import Node
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.next_hop import NextHop
from nsm.transport.server import Server
from tests.fakes.identity import FakeAuthority
from tests.fakes.node import fake_node

PASSES = 2


def kernel(path: FilePath) -> Mechanism:
    return Mechanism(LOCAL, KERNEL, {INODE_URL: f"file://{path}"})


def leads_to(connection: Connection, path: FilePath) -> bool:
    assert connection.mechanism is not None
    return FilePath(connection.mechanism.get(INODE_URL).removeprefix("file://")).samefile(path)


def first(connection_id: str = "c-0") -> Connection:
    return Connection(
        id=connection_id, network_service="ns", path=Path(0, (PathSegment(name="client", id=connection_id),))
    )


class EndpointRole:
    """Gives its namespace back; remembers what it saw of the client's."""

    def __init__(self, netns: FilePath) -> None:
        self.netns = netns
        self.open: set[str] = set()
        self.seen: list[Incoming] = []
        self.client_netns: list[int] = []

    async def request(self, incoming: Incoming) -> Connection:
        self.seen.append(incoming)
        self.open.add(incoming.connection.id)
        for mechanism in incoming.preferences:
            self.client_netns.append(_inode(mechanism))
        return replace(incoming.connection, mechanism=kernel(self.netns))

    async def close(self, closing: Closing) -> None:
        self.open.discard(closing.connection.id)


def _inode(mechanism: Mechanism) -> int:
    return FilePath(mechanism.get(INODE_URL).removeprefix("file://")).stat().st_ino


class Middle:
    """A middle hop that calls ``target(connection)``."""

    def __init__(self, name: str, node: Node, target: Callable[[Connection], str]) -> None:
        self.target = target
        self.hop = HopServer(name, self, tokens=node.tokens, policies=node.policies, is_endpoint=False)
        self.next = NextHop(name, node.channels, self._news)

    def _news(self, connection_id: str, news: Connection) -> None:
        self.hop.publish(
            connection_id, lambda c: replace(c, path=news.path, context=news.context, state=news.state)
        )

    async def request(self, incoming: Incoming) -> Connection:
        return await self.next.request(
            self.target(incoming.connection),
            incoming.connection,
            incoming.preferences,
            deadline=incoming.deadline,
        )

    async def close(self, closing: Closing) -> None:
        target = self.target(closing.connection)
        await self.next.close(target, closing.connection, deadline=closing.deadline)


class World:
    """client, then ``mgr`` and ``fwd`` twice each, then ``nse``."""

    def __init__(self, directory: FilePath) -> None:
        self.directory = directory
        self.news: asyncio.Queue[Connection] = asyncio.Queue()
        self.netns = directory / "netns-of-client", directory / "netns-of-nse"
        self.authority = FakeAuthority()
        self.hops: dict[str, HopServer] = {}
        self.role = EndpointRole(self.netns[1])
        self.client: NextHop
        self.node: Node
        self.middles: dict[str, Middle] = {}
        self.servers: dict[str, Server] = {}

    def url(self, name: str) -> str:
        return f"unix://{self.directory}/{name}.sock"

    async def serve(self, name: str, node: Node, hop: HopServer) -> Server:
        server = Server(node.identity)
        hop.serve(server)
        await server.start([self.url(name)])
        self.hops[name], self.servers[name] = hop, server
        return server

    async def ask(self, connection: Connection, seconds: float = 15.0) -> Connection:
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.client.request(
            self.url("mgr"), connection, (kernel(self.netns[0]),), deadline=deadline
        )

    async def close(self, connection: Connection, seconds: float = 15.0) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        await self.client.close(self.url("mgr"), connection, deadline=deadline)

    def count(self) -> dict[str, int]:
        return {name: len(hop.connections()) for name, hop in self.hops.items()}

    async def told(self, condition: Callable[[Connection], bool]) -> Connection:
        async with asyncio.timeout(10):
            while not condition(connection := await self.news.get()):
                pass
            return connection


@asynccontextmanager
async def _world(directory: FilePath) -> AsyncIterator[World]:
    world = World(directory)
    for file in world.netns:
        file.touch()
    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(fake_node(world.authority, name))
            for name in ("client", "mgr", "fwd", "nse")
        }
        nse = nodes["nse"]
        hop = HopServer("nse", world.role, tokens=nse.tokens, policies=nse.policies, is_endpoint=True)
        stack.push_async_callback((await world.serve("nse", nse, hop)).stop)
        stack.push_async_callback(hop.stop)
        targets: dict[str, Callable[[Connection], str]] = {
            "fwd": lambda c: world.url("nse" if c.route.index == 2 * PASSES else "mgr"),
            "mgr": lambda _c: world.url("fwd"),
        }
        for name, target in targets.items():
            middle = world.middles[name] = Middle(name, nodes[name], target)
            stack.push_async_callback((await world.serve(name, nodes[name], middle.hop)).stop)
            stack.push_async_callback(middle.hop.stop)
            stack.push_async_callback(middle.next.stop)
        world.node = nodes["client"]
        world.client = NextHop("client", world.node.channels, lambda _id, c: world.news.put_nowait(c))
        stack.push_async_callback(world.client.stop)
        yield world


@pytest.fixture
async def world(tmp_path: FilePath) -> AsyncIterator[World]:
    async with _world(tmp_path) as made:
        yield made


async def test_a_connection_over_the_same_hops_twice(world: World) -> None:
    answer = await world.ask(first())
    assert [s.name for s in answer.route.segments] == ["client", *["mgr", "fwd"] * PASSES, "nse"]
    peer = await world.node.channels.get(world.url("mgr")).peer()
    world.node.policies.client(answer.route, peer.leaf)
    assert leads_to(answer, world.netns[1])
    assert world.role.client_netns == [world.netns[0].stat().st_ino]
    again = await world.ask(answer)
    assert [s.id for s in again.route.segments] == [s.id for s in answer.route.segments]
    assert world.role.seen[1].is_refresh
    await world.close(again)
    assert (world.count(), world.role.open) == ({"nse": 0, "fwd": 0, "mgr": 0}, set())


async def test_news_comes_all_the_way_and_a_close_from_the_far_end_is_down(world: World) -> None:
    answer = await world.ask(first())
    own = answer.route.segments[-1].id

    def mtu(connection: Connection) -> Connection:
        return replace(connection, context=ConnectionContext(mtu=1300))

    async with asyncio.timeout(10):
        while len(world.hops["nse"]._watchers) < 1 or len(world.hops["mgr"]._watchers) < 2:  # noqa: ASYNC110 - goes on behind the answer
            await asyncio.sleep(0.01)
    world.hops["nse"].publish(own, mtu)
    assert (await world.told(lambda c: c.ctx.mtu == 1300)).state is State.UP
    await world.hops["nse"].close_connection(own, "role")
    await world.told(lambda c: c.state is State.DOWN)


async def test_200_requests_at_once(world: World) -> None:
    answers = await asyncio.gather(*(world.ask(first(f"c-{n}"), 60) for n in range(200)))
    assert {len(answer.route.segments) for answer in answers} == {2 + 2 * PASSES}
    assert world.count() == {"nse": 200, "fwd": 200 * PASSES, "mgr": 200 * PASSES}
    await asyncio.gather(*(world.close(answer, 60) for answer in answers))
    assert (world.count(), world.role.open) == ({"nse": 0, "fwd": 0, "mgr": 0}, set())


async def test_a_stranger_is_refused_by_rule_and_leaves_nothing(world: World) -> None:
    async with fake_node(world.authority, "stranger") as stranger:
        asked = replace(
            first(), path=Path(1, (PathSegment("client", "a", token="x"), PathSegment("mgr", "c-0")))
        )
        half = NextHop("mgr", stranger.channels)
        with capture_logs() as logs, pytest.raises(NsmError) as caught:
            await half.request(world.url("fwd"), asked, (), deadline=asyncio.get_running_loop().time() + 15)
        await half.stop()
    assert caught.value.code is Code.PERMISSION_DENIED
    (audit,) = [entry for entry in logs if entry["event"] == "audit"]
    assert (audit["rule"], audit["peer"]) == ("tokens_chained", stranger.tokens.spiffe_id)
    assert world.count() == {"nse": 0, "fwd": 0, "mgr": 0}


async def test_a_caller_whose_deadline_passes_leaves_nothing(world: World) -> None:
    gate = asyncio.Event()
    agree = world.role.request

    async def slow(incoming: Incoming) -> Connection:
        await gate.wait()
        return await agree(incoming)

    world.role.request = slow  # type: ignore[method-assign]
    with pytest.raises(NsmError) as caught:
        await world.ask(first(), 0.5)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    gate.set()
    async with asyncio.timeout(10):
        while any(world.count().values()) or world.role.open:  # noqa: ASYNC110 - goes on behind the answer
            await asyncio.sleep(0.01)


async def test_a_restarted_middle_hop_that_knows_its_connections_is_no_news(world: World) -> None:
    answer = await world.ask(first())
    before = world.middles["mgr"]
    async with asyncio.timeout(10):
        while len(before.hop._watchers) < PASSES:  # noqa: ASYNC110 - goes on behind the answer
            await asyncio.sleep(0.01)
    kept = before.hop.connections()
    async with fake_node(world.authority, "mgr") as node:
        again = Middle("mgr", node, before.target)
        for connection in kept:
            again.hop.adopt(connection, 100)
        await before.hop.stop()
        await world.servers["mgr"].stop()
        server = await world.serve("mgr", node, again.hop)
        refreshed = await world.ask(answer)
        assert [s.id for s in refreshed.route.segments] == [s.id for s in answer.route.segments]
        await world.close(refreshed)
        assert (world.count(), world.role.open) == ({"nse": 0, "fwd": 0, "mgr": 0}, set())
        await again.next.stop()
        await again.hop.stop()
        await server.stop()
