"""The client half of a hop against servers in the same process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest

from nsm.model.connection import Connection, State
from nsm.model.context import ConnectionContext
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.service import next_hop
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.next_hop import NextHop
from tests.fakes.hops import FakeRole, Mesh, call_of, first, hop

NSE = "unix:///nse"
OTHER = "unix:///other"


class News:
    """What a ``NextHop`` re-emits."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Connection]] = []
        self._new = asyncio.Event()

    def __call__(self, connection_id: str, connection: Connection) -> None:
        self.events.append((connection_id, connection))
        self._new.set()

    async def until(self, condition: Callable[["News"], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition(self):
                self._new.clear()
                await self._new.wait()

    @property
    def states(self) -> list[State]:
        return [connection.state for _, connection in self.events]


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is a plain look
            await asyncio.sleep(0.005)


@pytest.fixture
async def world() -> AsyncIterator["World"]:
    made = World()
    yield made
    await made.client.stop()
    for _, server in made.mesh.hops.values():
        await server.stop()
    made.mesh.close()


class World:
    """A client and one endpoint."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.role = FakeRole()
        self.nse = hop("nse", self.role)
        self.mesh.add(NSE, "nse", self.nse)
        self.news = News()
        self.client = NextHop("client", self.mesh.channels("client"), self.news)

    async def connected(self, connection: Connection | None = None, url: str = NSE) -> Connection:
        answer = await self.client.request(url, connection or first(), (), deadline=soon())
        await eventually(lambda: self.mesh.streams.get(url, 0) > 0)
        await asyncio.sleep(0.01)
        return answer


async def test_an_answer_stands_on_our_segment(world: World) -> None:
    answer = await world.connected()
    assert (answer.id, answer.route.index, len(answer.route.segments)) == ("c-0", 0, 2)
    assert answer.route.segments[0].token == "client-1 for nse"


async def test_news_of_the_next_hop_is_re_emitted_on_our_segment(world: World) -> None:
    answer = await world.connected()
    theirs = answer.route.segments[1].id
    world.nse.publish(theirs, lambda c: replace(c, context=ConnectionContext(mtu=1400), state=State.DOWN))
    await world.news.until(lambda news: len(news.events) == 1)
    ((own, connection),) = world.news.events
    assert (own, connection.id, connection.route.index) == ("c-0", "c-0", 0)
    assert (connection.state, connection.ctx.mtu) == (State.DOWN, 1400)


async def test_one_stream_serves_all_connections_and_ends_with_the_last(world: World) -> None:
    answers = await asyncio.gather(
        *(world.client.request(NSE, first(f"c-{n}"), (), deadline=soon()) for n in range(200))
    )
    await eventually(lambda: len(world.nse._watchers) == 1)
    assert world.mesh.streams == {NSE: 1}
    await asyncio.gather(*(world.client.close(NSE, answer, deadline=soon()) for answer in answers))
    await eventually(lambda: len(world.nse._watchers) == 0)
    assert (world.nse.connections(), world.news.events) == ((), [])


async def test_a_delete_is_down(world: World) -> None:
    answer = await world.connected()
    await world.nse.close_connection(answer.route.segments[1].id, "role")
    await world.news.until(lambda news: news.states == [State.DOWN])


async def test_our_own_close_is_no_news(world: World) -> None:
    answer = await world.connected()
    await world.client.close(NSE, answer, deadline=soon())
    await asyncio.sleep(0.02)
    assert (world.news.events, world.nse.connections()) == ([], ())


async def test_our_own_refresh_is_no_news(world: World) -> None:
    answer = await world.connected()
    for _ in range(3):
        answer = await world.client.request(NSE, answer, (), deadline=soon())
    await asyncio.sleep(0.02)
    assert world.news.events == []


@pytest.mark.parametrize("code", [None, Code.UNAVAILABLE, Code.CANCELLED])
async def test_a_broken_stream_is_opened_again_without_a_word(world: World, code: Code | None) -> None:
    await world.connected()
    world.mesh.break_streams(NSE, code)
    await eventually(lambda: world.mesh.streams[NSE] == 2)
    await asyncio.sleep(0.02)
    assert world.news.events == []


async def test_a_next_hop_that_stays_away_is_down_and_up_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_hop, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(next_hop, "RETRY_DELAY", 0.01)
    await world.connected()
    world.mesh.down.add(NSE)
    world.mesh.break_streams(NSE)
    await world.news.until(lambda news: news.states == [State.DOWN])
    await asyncio.sleep(0.05)
    assert world.news.states == [State.DOWN]
    world.mesh.down.clear()
    await world.news.until(lambda news: news.states == [State.DOWN, State.UP])


async def test_a_restarted_next_hop_that_knows_the_connection_says_nothing(world: World) -> None:
    await world.connected()
    (kept,) = world.nse.connections()
    again = hop("nse", FakeRole())
    again.adopt(kept, 100)
    world.mesh.add(NSE, "nse", again)
    await world.nse.stop()
    await eventually(lambda: world.mesh.streams[NSE] == 2)
    await asyncio.sleep(0.02)
    assert world.news.events == []


async def test_a_restarted_next_hop_that_knows_nothing_is_down(world: World) -> None:
    await world.connected()
    world.mesh.add(NSE, "nse", hop("nse", FakeRole()))
    await world.nse.stop()
    await world.news.until(lambda news: news.states == [State.DOWN])


async def test_a_connection_with_a_request_under_way_is_not_called_down(world: World) -> None:
    answer = await world.connected()
    gate, started = asyncio.Event(), asyncio.Event()

    async def slow(incoming: Incoming) -> Connection:
        started.set()
        await gate.wait()
        return incoming.connection

    world.role.act = slow
    refresh = asyncio.create_task(world.client.request(NSE, answer, (), deadline=soon()))
    await started.wait()
    world.nse.publish(answer.route.segments[1].id, lambda c: replace(c, state=State.DOWN))
    await asyncio.sleep(0.02)
    gate.set()
    await refresh
    await asyncio.sleep(0.02)
    assert world.news.events == []


async def test_after_a_failed_refresh_the_last_word_counts(world: World) -> None:
    answer = await world.connected()

    async def fail(incoming: Incoming) -> Connection:
        world.nse.publish(incoming.connection.id, lambda c: replace(c, state=State.DOWN))
        await asyncio.sleep(0.02)
        raise NsmError(Code.UNAVAILABLE, "no")

    world.role.act = fail
    with pytest.raises(NsmError):
        await world.client.request(NSE, answer, (), deadline=soon())
    await world.news.until(lambda news: news.states == [State.DOWN])


async def test_a_failed_first_request_is_not_followed(world: World) -> None:
    world.mesh.down.add(NSE)
    with pytest.raises(NsmError) as caught:
        await world.client.request(NSE, first(), (), deadline=soon())
    assert caught.value.code is Code.UNAVAILABLE
    assert (world.client._followed, world.client._watches) == ({}, {})


async def test_a_connection_that_moves_is_closed_where_it_was(world: World) -> None:
    role = FakeRole()
    world.mesh.add(OTHER, "other", hop("other", role))
    answer = await world.connected()
    moved = await world.connected(answer, OTHER)
    assert moved.route.segments[1].name == "other"
    await eventually(lambda: [closing.reason for closing in world.role.closings] == ["call"])
    await eventually(lambda: len(world.nse._watchers) == 0)
    assert (role.closings, world.news.events) == ([], [])


async def test_the_same_hop_under_another_url_is_not_closed(world: World) -> None:
    world.mesh.add(OTHER, "nse", world.nse)
    answer = await world.connected()
    await world.connected(answer, OTHER)
    await asyncio.sleep(0.02)
    assert (world.role.closings, len(world.nse.connections())) == ([], 1)


async def test_no_time_left_is_a_deadline(world: World) -> None:
    with pytest.raises(NsmError) as caught:
        await world.client.request(NSE, first(), (), deadline=soon(-1))
    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_a_new_connection_with_an_answer_that_lost_our_place_is_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = world.nse.request

    async def lie(request: Any, call: Any) -> Connection:
        answer = await honest(request, call)
        segments = (replace(answer.route.segments[0], id="other"), *answer.route.segments[1:])
        return replace(answer, path=replace(answer.route, segments=segments))

    monkeypatch.setattr(world.nse, "request", lie)
    with pytest.raises(NsmError) as caught:
        await world.client.request(NSE, first(), (), deadline=soon())
    assert caught.value.field == "connection.path.path_segments[0].id"
    assert world.client._followed == {}


# -- descriptors --------------------------------------------------------------------------------------------


def kernel(url: str) -> Mechanism:
    return Mechanism(LOCAL, KERNEL, {INODE_URL: url})


def leads_to(url: str, path: FilePath) -> bool:
    return FilePath(url.removeprefix("file://")).samefile(path)


def leads_nowhere(url: str) -> bool:
    return not FilePath(url.removeprefix("file://")).exists()


def open_fds() -> int:
    return sum(1 for _ in FilePath("/proc/self/fd").iterdir())


def url_of(connection: Connection) -> str:
    assert connection.mechanism is not None
    return connection.mechanism.get(INODE_URL)


@pytest.fixture
def netns(tmp_path: FilePath) -> tuple[FilePath, FilePath]:
    """Two files that stand for the client's and the endpoint's namespace."""
    files = tmp_path / "client", tmp_path / "nse"
    for file in files:
        file.touch()
    return files


async def test_a_descriptor_of_the_next_hop_is_a_file_until_forgotten(
    world: World, netns: tuple[FilePath, FilePath]
) -> None:
    client, nse = netns

    async def give(incoming: Incoming) -> Connection:
        assert leads_to(incoming.preferences[0].get(INODE_URL), client)
        return replace(incoming.connection, mechanism=kernel(f"file://{nse}"))

    world.role.act = give
    answer = await world.client.request(NSE, first(), (kernel(f"file://{client}"),), deadline=soon())
    assert url_of(answer).startswith("file:///proc/self/fd/")
    assert leads_to(url_of(answer), nse)
    again = await world.client.request(NSE, answer, (kernel(f"file://{client}"),), deadline=soon())
    assert leads_to(url_of(again), nse)
    world.client.forget("c-0")
    assert leads_nowhere(url_of(again))


async def test_our_own_descriptor_comes_back_as_the_file_we_named(
    world: World, netns: tuple[FilePath, FilePath]
) -> None:
    client, _ = netns

    async def echo(incoming: Incoming) -> Connection:
        return replace(incoming.connection, mechanism=incoming.preferences[0])

    world.role.act = echo
    answer = await world.client.request(NSE, first(), (kernel(f"file://{client}"),), deadline=soon())
    assert url_of(answer) == f"file://{client}"
    assert world.client._followed["c-0"].box.__len__() == 0


async def test_over_tcp_no_url_of_a_descriptor_leaves(world: World, netns: tuple[FilePath, FilePath]) -> None:
    world.mesh.tcp.add(NSE)
    await world.client.request(
        NSE, first(), (kernel(f"file://{netns[0]}"), kernel("inode://1/2")), deadline=soon()
    )
    assert [mechanism.parameters for mechanism in world.role.requests[0].preferences] == [{}, {}]


async def test_a_namespace_that_is_gone_is_refused_by_field(world: World, tmp_path: FilePath) -> None:
    with pytest.raises(NsmError) as caught:
        await world.client.request(NSE, first(), (kernel(f"file://{tmp_path}/gone"),), deadline=soon())
    assert (caught.value.code, caught.value.field) == (
        Code.FAILED_PRECONDITION, "mechanism.parameters.inodeURL",
    )  # fmt: skip
    assert world.role.requests == []


# -- whole chains -------------------------------------------------------------------------------------------


class Middle:
    """The role of a middle hop: passes on to ``urls[service-independent turn]``, news back up."""

    def __init__(self, name: str, mesh: Mesh, url_of_next: Callable[[Connection], str]) -> None:
        self.url_of_next = url_of_next
        self.fails_after = False
        self.server: HopServer = hop(name, self, is_endpoint=False)
        self.next = NextHop(name, mesh.channels(name), self._news)

    def _news(self, connection_id: str, news: Connection) -> None:
        self.server.publish(
            connection_id, lambda c: replace(c, path=news.path, context=news.context, state=news.state)
        )

    async def request(self, incoming: Incoming) -> Connection:
        url = self.url_of_next(incoming.connection)
        return await self.next.request(
            url, incoming.connection, incoming.preferences, deadline=incoming.deadline
        )

    async def close(self, closing: Closing) -> None:
        await self.next.close(
            self.url_of_next(closing.connection), closing.connection, deadline=closing.deadline
        )


class Chain:
    """client, manager, forwarder, manager, forwarder, …, endpoint: each process passed once per service."""

    def __init__(self, passes: int, netns: FilePath) -> None:
        self.mesh = Mesh()
        self.role = FakeRole(self._endpoint)
        self.netns = netns
        self.nse = hop("nse", self.role)
        self.manager = Middle("mgr", self.mesh, lambda _connection: "fwd")
        self.forwarder = Middle("fwd", self.mesh, lambda c: "nse" if c.route.index == 2 * passes else "mgr")
        self.mesh.add("mgr", "mgr", self.manager.server)
        self.mesh.add("fwd", "fwd", self.forwarder.server)
        self.mesh.add("nse", "nse", self.nse)
        self.news = News()
        self.client = NextHop("client", self.mesh.channels("client"), self.news)

    async def _endpoint(self, incoming: Incoming) -> Connection:
        return replace(incoming.connection, mechanism=kernel(f"file://{self.netns}"))

    def servers(self) -> tuple[HopServer, ...]:
        return self.manager.server, self.forwarder.server, self.nse

    async def stop(self) -> None:
        for half in (self.client, self.manager.next, self.forwarder.next):
            await half.stop()
        for server in self.servers():
            await server.stop()
        self.mesh.close()


@pytest.mark.parametrize("passes", [1, 3])
async def test_a_chain_connects_refreshes_and_closes_cleanly(
    passes: int, netns: tuple[FilePath, FilePath]
) -> None:
    client, nse = netns
    chain = Chain(passes, nse)
    before = open_fds()
    answer = await chain.client.request("mgr", first(), (kernel(f"file://{client}"),), deadline=soon())
    names = [segment.name for segment in answer.route.segments]
    assert names == ["client", *["mgr", "fwd"] * passes, "nse"]
    tokens = [segment.token.partition(" for ")[2] for segment in answer.route.segments]
    assert tokens[:-1] == names[1:]
    assert leads_to(url_of(answer), nse)
    again = await chain.client.request("mgr", answer, (kernel(f"file://{client}"),), deadline=soon())
    assert [s.id for s in again.route.segments] == [s.id for s in answer.route.segments]
    await chain.client.close("mgr", again, deadline=soon())
    assert [server.connections() for server in chain.servers()] == [(), (), ()]
    await chain.stop()
    assert open_fds() <= before


async def test_news_travels_up_a_path_that_passes_the_same_hops_again(
    netns: tuple[FilePath, FilePath],
) -> None:
    chain = Chain(3, netns[1])
    answer = await chain.client.request("mgr", first(), (), deadline=soon())
    await eventually(lambda: chain.mesh.streams == {"mgr": 2, "fwd": 1, "nse": 1})
    await asyncio.sleep(0.02)
    chain.nse.publish(answer.route.segments[-1].id, lambda c: replace(c, context=ConnectionContext(mtu=1300)))
    await chain.news.until(lambda news: bool(news.events) and news.events[-1][1].ctx.mtu == 1300)
    await chain.nse.close_connection(answer.route.segments[-1].id, "role")
    await chain.news.until(lambda news: news.states[-1] is State.DOWN)
    await chain.stop()


async def test_200_paths_at_once_through_the_same_hops(netns: tuple[FilePath, FilePath]) -> None:
    chain = Chain(3, netns[1])
    answers = await asyncio.gather(
        *(chain.client.request("mgr", first(f"c-{n}"), (), deadline=soon(60)) for n in range(200))
    )
    assert {len(answer.route.segments) for answer in answers} == {8}
    assert [len(server.connections()) for server in chain.servers()] == [600, 600, 200]
    await asyncio.gather(*(chain.client.close("mgr", answer, deadline=soon(60)) for answer in answers))
    assert [server.connections() for server in chain.servers()] == [(), (), ()]
    assert chain.news.events == []
    await chain.stop()


async def test_an_endpoint_that_refuses_leaves_nothing_on_the_way(netns: tuple[FilePath, FilePath]) -> None:
    chain = Chain(2, netns[1])

    async def refuse(_incoming: Incoming) -> Connection:
        raise NsmError(Code.RESOURCE_EXHAUSTED, "no address left")

    chain.role.act = refuse
    with pytest.raises(NsmError) as caught:
        await chain.client.request("mgr", first(), (), deadline=soon())
    assert (caught.value.code, caught.value.message) == (Code.RESOURCE_EXHAUSTED, "no address left")
    assert [server.connections() for server in chain.servers()] == [(), (), ()]
    await chain.stop()


async def test_a_caller_that_goes_away_leaves_nothing_on_the_way(netns: tuple[FilePath, FilePath]) -> None:
    chain = Chain(2, netns[1])
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(incoming: Incoming) -> Connection:
        started.set()
        await gate.wait()
        return incoming.connection

    chain.role.act = slow
    caller = asyncio.create_task(chain.client.request("mgr", first(), (), deadline=soon()))
    await started.wait()
    caller.cancel()
    with suppress(asyncio.CancelledError):
        await caller
    gate.set()
    await eventually(lambda: [c.reason for c in chain.role.closings] in (["call"], ["rollback"]))
    await eventually(lambda: not any(server.connections() for server in chain.servers()))
    await chain.stop()


async def test_a_next_hop_away_keeps_the_connection_and_says_down(netns: tuple[FilePath, FilePath]) -> None:
    chain = Chain(1, netns[1])
    answer = await chain.client.request("mgr", first(), (), deadline=soon())
    await eventually(lambda: chain.mesh.streams == {"mgr": 1, "fwd": 1, "nse": 1})
    chain.mesh.down.add("nse")
    chain.mesh.break_streams("nse", Code.UNAVAILABLE)
    with pytest.raises(NsmError):
        await chain.client.request("mgr", answer, (), deadline=soon())
    await chain.news.until(lambda news: bool(news.states) and news.states[-1] is State.DOWN)
    assert [len(server.connections()) for server in chain.servers()] == [1, 1, 1]
    chain.mesh.down.clear()
    again = await chain.client.request("mgr", answer, (), deadline=soon())
    assert [s.id for s in again.route.segments] == [s.id for s in answer.route.segments]
    await chain.client.close("mgr", again, deadline=soon())
    assert [server.connections() for server in chain.servers()] == [(), (), ()]
    await chain.stop()


async def test_a_connection_can_be_asked_for_by_a_call_without_news() -> None:
    mesh, server = Mesh(), hop("nse", FakeRole())
    mesh.add(NSE, "nse", server)
    quiet = NextHop("client", mesh.channels("client"))
    await quiet.request(NSE, first(), (), deadline=soon())
    await asyncio.sleep(0.02)
    assert mesh.streams == {}
    await server.close(first(), call_of().call)
    await quiet.stop()
    await server.stop()
