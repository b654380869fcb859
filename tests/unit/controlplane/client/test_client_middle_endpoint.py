"""Client, a middle hop and endpoint over real sockets: path, descriptors, refresh, heal, Close."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from controlplane.client import session as session_module
from controlplane.client.client import Client
from controlplane.client.path_facts import hops
from controlplane.client.service_url import parse_services
from controlplane.client.session import ClientSession, Phase
from controlplane.client.settings import ClientSettings
from controlplane.endpoint.serving import Endpoint
from controlplane.endpoint.settings import EndpointSettings
from nsm.identity.tokens import PathTokens, PathTokenVerifier
from nsm.model.connection import Connection, State
from nsm.model.endpoint import EndpointQuery, EndpointResponse, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import denied
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path as NsmPath
from nsm.policy.rules import Policies
from nsm.service.daemon import Node
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.next_hop import NextHop
from nsm.transport.call import Call
from nsm.transport.channel import Channels
from nsm.transport.server import Server
from nsm.wire import methods
from tests.fakes.identity import FakeAuthority

OWN_NETNS = os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - the link's target
POOL = ((ip_network("172.31.0.0/24"),), (ip_network("fd31::/120"),))


def node(authority: FakeAuthority, path: str, lifetime: float = 600.0) -> Node:
    identity = authority.identity(path)
    tokens = PathTokens(identity, max_lifetime=lifetime)
    verifier = PathTokenVerifier()
    return Node(
        identity=identity,
        tokens=tokens,
        verifier=verifier,
        policies=Policies(verifier),
        channels=Channels(identity, tokens),
    )


class Middle:
    """A hop that passes every Request on to the endpoint that registered last, and that endpoint's registry."""

    def __init__(self, name: str, own: Node) -> None:
        self.own = own
        self.next_hop = NextHop(name, own.channels, on_event=self._event)
        self.hop = HopServer(name, self, tokens=own.tokens, policies=own.policies, is_endpoint=False)
        self.server = Server(own.identity)
        self.url = ""
        self.endpoint = ""
        self.services: list[NetworkService] = []
        self.namespaces: list[int] = []
        self.requests: list[Incoming] = []
        self.changed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.closed: asyncio.Queue[str] = asyncio.Queue()
        self._theirs: dict[str, Mechanism] = {}
        self._sockets: list[int] = []

    async def start(self, url: str) -> None:
        self.hop.serve(self.server)
        self.server.unary(methods.NS_REGISTER, self._register_service)
        self.server.unary(methods.NSE_REGISTER, self._register_endpoint)
        self.server.stream(methods.NSE_FIND, self._find)
        await self.server.start([url])

    async def stop(self) -> None:
        await self.server.stop()
        await self.hop.stop()
        await self.next_hop.stop()
        await self.own.channels.close()
        for fd in self._sockets:
            os.close(fd)

    async def request(self, incoming: Incoming) -> Connection:
        self.arrived.set()
        await self.gate.wait()
        asked = incoming.connection
        mine = asked.mechanism or incoming.preferences[0]
        answer = await self.next_hop.request(
            self.url,
            replace(asked, mechanism=self._theirs.get(asked.id), network_service_endpoint_name=self.endpoint),
            [Mechanism(LOCAL, KERNEL)],
            deadline=incoming.deadline,
        )
        assert answer.mechanism is not None
        self._theirs[asked.id] = answer.mechanism.without(INODE_URL)  # its descriptor ends with the call
        for mechanism in (mine, answer.mechanism):
            assert mechanism.get(INODE_URL).startswith("file:///proc/")
            self.namespaces.append(os.stat(mechanism.get(INODE_URL).removeprefix("file://")).st_ino)  # noqa: PTH116
        self.requests.append(incoming)
        async with self.changed:
            self.changed.notify_all()
        return replace(answer, mechanism=mine)

    async def close(self, closing: Closing) -> None:
        self._theirs.pop(closing.connection.id, None)
        await self.next_hop.close(self.url, closing.connection, deadline=closing.deadline)
        self.closed.put_nowait(closing.reason)

    async def served(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.requests) >= count)

    def _event(self, connection_id: str, connection: Connection) -> None:
        self.hop.publish(connection_id, lambda own: replace(own, state=connection.state))

    async def _register_service(self, service: NetworkService, call: Call) -> NetworkService:
        self.services.append(service)
        return service

    async def _register_endpoint(
        self, endpoint: NetworkServiceEndpoint, call: Call
    ) -> NetworkServiceEndpoint:
        fd = await call.receive_fd(endpoint.url)
        self._sockets.append(fd)
        self.url, self.endpoint = f"unix:///proc/self/fd/{fd}", endpoint.name
        return replace(endpoint, expiration_time=time.time_ns() + 60 * 10**9)

    async def _find(self, query: EndpointQuery, call: Call) -> AsyncIterator[EndpointResponse]:
        yield EndpointResponse(NetworkServiceEndpoint(name=self.endpoint))
        if query.watch:
            await asyncio.get_running_loop().create_future()


class World:
    """The three of them; everything that was started is stopped at the end."""

    def __init__(self, directory: Path, stack: AsyncExitStack, lifetime: float) -> None:
        self.authority = FakeAuthority()
        self.directory = directory
        self.manager = f"unix://{directory}/nsm.io.sock"
        self.stack = stack
        self.middle = Middle("middle", node(self.authority, "manager/middle", lifetime))
        self.lifetime = lifetime
        self.changes: asyncio.Queue[tuple[str, Phase]] = asyncio.Queue()

    async def endpoint(self, name: str = "nse-1", **more: object) -> Endpoint:
        settings = EndpointSettings(
            name=name,
            connect_to=self.manager,
            service_names=("icmp-responder", "other"),
            cidr_prefix=POOL,
            pbr_config_path="",
            registry_client_policies=(),
            **more,  # type: ignore[arg-type]
        )
        own = node(self.authority, f"endpoint/{name}", self.lifetime)
        endpoint = Endpoint(settings, own)
        await endpoint.start()
        self.stack.push_async_callback(own.channels.close)
        self.stack.push_async_callback(endpoint.stop)
        return endpoint

    def client(self, name: str = "nsc", policies: Policies | None = None, **more: object) -> Client:
        settings = ClientSettings(
            name=name,
            connect_to=self.manager,
            liveness_check_enabled=False,
            local_dns_server_enabled=False,
            max_token_lifetime=self.lifetime,
            **more,  # type: ignore[arg-type]
        )
        own = node(self.authority, f"client/{name}", self.lifetime)
        own = replace(own, policies=policies or own.policies)
        client = Client(settings, own, on_change=self._changed)
        self.stack.push_async_callback(own.channels.close)
        self.stack.push_async_callback(client.stop)
        return client

    def _changed(self, session: ClientSession) -> None:
        self.changes.put_nowait((session.wish.id, session.phase))

    async def until(self, connection_id: str, phase: Phase) -> None:
        while await self.changes.get() != (connection_id, phase):
            pass


@pytest.fixture(params=[600.0])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(tmp_path, stack, request.param)
        await made.middle.start(made.manager)
        stack.push_async_callback(made.middle.stop)
        yield made


SERVICES = parse_services(["kernel://icmp-responder/nsm-1?app=db", "kernel://other/nsm-2"])


async def test_a_service_is_reached_with_everything_it_needs_and_closed(world: World) -> None:
    endpoint = await world.endpoint()
    client = world.client(node_name="n1")
    await client.update(SERVICES)
    await client.connected()
    first, second = (session.connection for session in client.sessions)
    assert first is not None
    assert second is not None
    assert (first.id, second.id) == ("nsc-0", "nsc-1")
    assert dict(first.labels) == {"app": "db", "nodeName": "n1"}
    assert [segment.name for segment in first.route.segments] == ["nsc", "middle", "nse-1"]
    assert [hop["spiffe_id"] for hop in hops(first, PathTokenVerifier())] == [
        "spiffe://example.org/client/nsc",
        "spiffe://example.org/manager/middle",
        "spiffe://example.org/endpoint/nse-1",
    ]
    assert first.mechanism is not None
    assert (first.mechanism.get("name"), first.mechanism.get(INODE_URL)) == (
        "nsm-1",
        "file:///proc/thread-self/ns/net",
    )
    held = [*first.ip.src_ip_addrs, *first.ip.dst_ip_addrs, *second.ip.src_ip_addrs, *second.ip.dst_ip_addrs]
    assert len(held) == len(set(held)) == 8  # IPv4 and IPv6 in each connection
    assert first.payload == "ETHERNET"
    assert world.middle.namespaces == [OWN_NETNS] * 4  # by descriptor, from both ends
    assert [service.name for service in world.middle.services] == ["icmp-responder", "other"]
    assert len(endpoint.connections) == 2
    await client.stop()
    assert [*endpoint.connections, *world.middle.hop.connections()] == []


async def test_one_is_added_and_one_removed_while_the_other_stays(world: World) -> None:
    endpoint = await world.endpoint()
    client = world.client()
    await client.update(SERVICES)
    await client.connected()
    kept = client.sessions[1].connection
    third = parse_services(["kernel://icmp-responder/nsm-3"])
    added, removed = await client.update([SERVICES[1], *third])
    assert (added, removed) == (["nsc-2"], ["nsc-0"])
    await client.connected()
    assert client.sessions[0].connection is kept
    assert sum(incoming.connection.route.segments[0].id == "nsc-1" for incoming in world.middle.requests) == 1
    names = {
        connection.mechanism.get("name")
        for connection in world.middle.hop.connections()
        if connection.mechanism
    }
    assert names == {"nsm-2", "nsm-3"}
    assert len(endpoint.connections) == 2


@pytest.mark.parametrize("world", [4.0], indirect=True)
async def test_refreshes_change_nothing_but_tokens(world: World) -> None:
    endpoint = await world.endpoint()
    client = world.client()
    await client.update(SERVICES[:1])
    await client.connected()
    first = client.sessions[0].connection
    theirs = endpoint.connections[0]
    await world.middle.served(4)
    assert all(incoming.is_refresh for incoming in world.middle.requests[1:])
    assert first is not None
    last = world.middle.requests[-1].connection
    assert (last.context, last.mechanism is None) == (first.context, False)
    assert [segment.id for segment in last.route.segments] == [segment.id for segment in first.route.segments]
    assert last.route.segments[0].token != first.route.segments[0].token
    assert (endpoint.connections[0].mechanism, endpoint.connections[0].context) == (
        theirs.mechanism,
        theirs.context,
    )


async def test_a_restarted_endpoint_is_found_again_with_the_same_addresses(world: World) -> None:
    endpoint = await world.endpoint()
    client = world.client()
    await client.update(SERVICES[:1])
    await client.connected()
    before = client.sessions[0].connection
    assert before is not None
    await endpoint.stop()
    await world.until("nsc-0", Phase.HEALING)
    again = await world.endpoint()
    await world.until("nsc-0", Phase.UP)
    after = client.sessions[0].connection
    assert after is not None
    assert (after.ip.src_ip_addrs, after.ip.dst_ip_addrs) == (before.ip.src_ip_addrs, before.ip.dst_ip_addrs)
    assert after.state == State.UP
    assert len(again.connections) == 1


async def test_a_restarted_client_adopts_its_connection(world: World) -> None:
    endpoint = await world.endpoint()
    client = world.client()
    await client.update(SERVICES[:1])
    await client.connected()
    before = client.sessions[0].connection
    assert before is not None
    for session in client.sessions:  # gone without a word, as by SIGKILL
        assert session._task is not None
        session._task.cancel()
    await client._manager.stop()
    successor = world.client()
    await successor.update(SERVICES[:1])
    await successor.connected()
    after = successor.sessions[0].connection
    assert after is not None
    assert [segment.id for segment in after.route.segments] == [
        segment.id for segment in before.route.segments
    ]
    assert after.context == before.context
    assert world.middle.requests[-1].is_refresh
    assert len(endpoint.connections) == 1


async def test_leases_survive_a_restart_on_disk(world: World) -> None:
    file = str(world.directory / "leases.json")
    endpoint = await world.endpoint(lease_file=file)
    client = world.client()
    await client.update(SERVICES[:1])
    await client.connected()
    before = client.sessions[0].connection
    assert before is not None
    await endpoint.stop()
    await world.endpoint(lease_file=file)
    stranger = world.client("stranger")
    await stranger.update(SERVICES[:1])
    await stranger.connected()
    other = stranger.sessions[0].connection
    assert other is not None
    assert not set(other.ip.src_ip_addrs) & set(before.ip.src_ip_addrs)


@pytest.mark.parametrize("grace", [0.0, 10.0])
async def test_stopped_while_the_first_request_is_under_way_nothing_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, grace: float
) -> None:
    """Without patience the Request is cancelled and rolled back behind it, else its answer is closed."""
    monkeypatch.setattr(session_module, "STOP_GRACE", grace)
    endpoint = await world.endpoint()
    world.middle.gate.clear()
    client = world.client()
    await client.update(SERVICES[:1])
    await world.middle.arrived.wait()
    stopping = asyncio.create_task(client.stop())
    if grace:
        await asyncio.sleep(0)
    else:
        await stopping
    world.middle.gate.set()
    reason = await asyncio.wait_for(world.middle.closed.get(), 30)
    await stopping
    assert reason == ("call" if grace else "rollback")
    assert [*endpoint.connections, *world.middle.hop.connections()] == []


class Strict(Policies):
    """Refuses the first answers, as if the path had been tampered with."""

    def __init__(self, refusals: int) -> None:
        super().__init__(PathTokenVerifier())
        self.refusals = refusals

    def client(self, path: NsmPath, peer_leaf: bytes) -> None:
        super().client(path, peer_leaf)
        if self.refusals:
            self.refusals -= 1
            raise denied("tokens_chained", "for the test")


async def test_an_answer_the_policies_refuse_is_closed_and_asked_for_again(world: World) -> None:
    endpoint = await world.endpoint()
    client = world.client(policies=Strict(1))
    await client.update(SERVICES[:1])
    await client.connected()
    assert await world.middle.closed.get() == "call"
    assert len(world.middle.requests) == 2
    assert len(endpoint.connections) == 1


async def test_descriptors_do_not_pile_up(world: World) -> None:
    await world.endpoint()
    client = world.client()
    await client.update(SERVICES[:1])
    await client.connected()
    session = client.sessions[0]
    assert session.connection is not None
    counts = []
    for number in range(2, 8):
        session.news(replace(session.connection, state=State.REFRESH_REQUESTED))
        await world.middle.served(number)
        counts.append(open_descriptors())
    assert counts[-1] <= counts[0] + 2
    await client.stop()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
