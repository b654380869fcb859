"""Managers between real sockets: registry, two nodes with a forwarder and an endpoint each, and a client.

Forwarder and endpoint are roles that only negotiate; everything else is what the daemons run.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from controlplane.manager.app import Manager, manager
from controlplane.manager.settings import ManagerSettings
from controlplane.registry.catalogue import Catalogue
from controlplane.registry.server import RegistryServer, registry_policies
from controlplane.registry.store import MemoryStore
from nsm.model.connection import Connection, EventType, MonitorScopeSelector, State
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.endpoint import Destination, Match, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, REMOTE, VXLAN, Mechanism
from nsm.policy.rules import RegistryPolicies
from nsm.service.config import REGISTRY_CLIENT_POLICIES, REGISTRY_SERVER_POLICIES
from nsm.service.daemon import Node
from nsm.service.discovery import Discovery
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.next_hop import NextHop
from nsm.service.registration import Registration
from nsm.service.registry import RegistryClient
from nsm.session.path import step
from nsm.transport.call import Call
from nsm.transport.server import Server
from tests.fakes.identity import FakeAuthority
from tests.fakes.node import fake_node


class EndpointRole:
    """Takes the first preference, puts its own namespace into a kernel mechanism, counts what is open."""

    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.open: set[str] = set()
        self.closed = asyncio.Event()
        self.seen: list[Connection] = []

    async def request(self, incoming: Incoming) -> Connection:
        self.open.add(incoming.connection.id)
        self.seen.append(incoming.connection)
        mechanism = incoming.connection.mechanism or incoming.preferences[0]
        if mechanism.type == KERNEL:
            mechanism = mechanism.having(**{INODE_URL: f"file://{self.netns}"})
        context = ConnectionContext(ip_context=IpContext(src_ip_addrs=("10.0.0.1/32",)))
        return replace(incoming.connection, mechanism=mechanism, context=context)

    async def close(self, closing: Closing) -> None:
        self.open.discard(closing.connection.id)
        self.closed.set()


class ForwarderRole:
    """Finds the endpoint through its manager; LOCAL towards a socket of the node, REMOTE towards another node."""

    def __init__(self, client: RegistryClient, next_hop: NextHop) -> None:
        self.discovery = Discovery(client)
        self.next_hop = next_hop
        self.urls: dict[str, str] = {}
        self.namespaces: list[tuple[int, int]] = []

    async def request(self, incoming: Incoming) -> Connection:
        asked = incoming.connection
        for preference in incoming.preferences:
            if preference.type == KERNEL:
                status = Path(preference.get(INODE_URL).removeprefix("file://")).stat()  # noqa: ASYNC240
                self.namespaces.append((status.st_dev, status.st_ino))
        found = await self.discovery.candidates(asked)
        endpoint = found.endpoints[0]
        is_local = endpoint.url.startswith("unix:")
        offer = Mechanism(LOCAL, KERNEL) if is_local else Mechanism(REMOTE, VXLAN, {"src_ip": "10.0.0.1"})
        onward = replace(
            asked,
            mechanism=None,
            network_service_endpoint_name=endpoint.name,
            payload=found.payload or asked.payload,
        )
        answer = await self.next_hop.request(endpoint.url, onward, (offer,), deadline=incoming.deadline)
        self.urls[asked.id] = endpoint.url
        return replace(answer, mechanism=asked.mechanism or incoming.preferences[0])

    async def close(self, closing: Closing) -> None:
        connection = closing.connection
        url = self.urls.pop(connection.id, "")
        if url:
            await self.next_hop.close(url, replace(connection, mechanism=None), deadline=closing.deadline)


@dataclass
class World:
    """A registry, and what is started on the nodes."""

    authority: FakeAuthority
    stack: AsyncExitStack
    directory: Path
    registry_url: str = ""

    async def node(self, path: str) -> Node:
        return await self.stack.enter_async_context(fake_node(self.authority, path))

    @asynccontextmanager
    async def registry(self, url: str = "tcp://127.0.0.1:0") -> AsyncIterator[Catalogue]:
        async with fake_node(self.authority, "registry") as node:
            services, endpoints = registry_policies(node.verifier, REGISTRY_SERVER_POLICIES)
            catalogue = Catalogue(MemoryStore(), services=services, endpoints=endpoints)
            server = Server(node.identity)
            RegistryServer(
                catalogue, tokens=node.tokens, verifier=node.verifier, services=services, endpoints=endpoints
            ).serve(server)
            (self.registry_url,) = await server.start([url])
            try:
                yield catalogue
            finally:
                await server.stop()
                await catalogue.close()

    def socket_url(self, name: str) -> str:
        return f"unix://{self.directory}/{name}.sock"

    async def manager(self, number: int) -> Manager:
        settings = ManagerSettings(
            name=f"nsmgr-{number}",
            registry_url=self.registry_url,
            excluded_prefixes_file=self.directory / f"config-{number}" / "excluded_prefixes.yaml",
            node_name=f"n{number}",
        )
        node = await self.node(f"manager/{number}")
        made = await self.stack.enter_async_context(manager(settings, node))
        await made.start([self.socket_url(f"nsmgr-{number}"), "tcp://127.0.0.1:0"])
        return made

    async def client_of(self, node: Node, number: int) -> RegistryClient:
        policies = RegistryPolicies(node.verifier, REGISTRY_CLIENT_POLICIES)
        client = RegistryClient(node.channels, self.socket_url(f"nsmgr-{number}"), policies=policies)
        self.stack.push_async_callback(client.close)
        return client

    async def forwarder(self, number: int, name: str = "") -> ForwarderRole:
        name = name or f"fwd-{number}"
        node = await self.node(f"forwarder/{name}")
        client = await self.client_of(node, number)
        next_hop = NextHop(name, node.channels)
        self.stack.push_async_callback(next_hop.stop)
        role = ForwarderRole(client, next_hop)
        await self._serve(
            node, name, HopServer(name, role, tokens=node.tokens, policies=node.policies, is_endpoint=False)
        )
        wanted = NetworkServiceEndpoint(
            name=name,
            network_service_names=("forwarder",),
            network_service_labels={"forwarder": {"p2p": "true"}},
            url=self.socket_url(name),
        )
        await self._register(client, wanted)
        return role

    async def endpoint(
        self, number: int, service: str, name: str = "", labels: dict[str, str] | None = None
    ) -> EndpointRole:
        name = name or f"nse-{number}"
        node = await self.node(f"endpoint/{name}")
        client = await self.client_of(node, number)
        role = EndpointRole("/proc/self/ns/net")
        await self._serve(
            node, name, HopServer(name, role, tokens=node.tokens, policies=node.policies, is_endpoint=True)
        )
        wanted = NetworkServiceEndpoint(
            name=name,
            network_service_names=(service,),
            network_service_labels={service: labels or {}},
            url=self.socket_url(name),
        )
        await self._register(client, wanted, NetworkService(service))
        return role

    async def workload(self, number: int) -> "Workload":
        name = f"nsc-{number}"
        node = await self.node(f"client/{name}")
        next_hop = NextHop(name, node.channels)
        self.stack.push_async_callback(next_hop.stop)
        return Workload(name, node, next_hop, self.socket_url(f"nsmgr-{number}"))

    async def _serve(self, node: Node, name: str, hop: HopServer) -> None:
        server = Server(node.identity)
        hop.serve(server)
        await server.start([self.socket_url(name)])
        self.stack.push_async_callback(hop.stop)
        self.stack.push_async_callback(server.stop)

    async def _register(
        self, client: RegistryClient, wanted: NetworkServiceEndpoint, *services: NetworkService
    ) -> None:
        kept = Registration(client, wanted, services)
        await kept.start()
        self.stack.push_async_callback(kept.stop, unregister=False)


@dataclass
class Workload:
    """A client that checks the whole path as cmd-nsc does."""

    name: str
    node: Node
    next_hop: NextHop
    url: str

    async def request(self, service: str, before: Connection | None = None) -> Connection:
        wanted = before or step(Connection(network_service=service), self.name, lambda: f"{self.name}-0")[0]
        offer = Mechanism(LOCAL, KERNEL, {INODE_URL: "file:///proc/self/ns/net", "name": "nsm-1"})
        deadline = asyncio.get_running_loop().time() + 15
        answer = await self.next_hop.request(self.url, wanted, (offer,), deadline=deadline)
        leaf = (await self.node.channels.get(self.url).peer()).leaf
        self.node.policies.client(answer.route, leaf)
        return answer

    async def close(self, connection: Connection) -> None:
        deadline = asyncio.get_running_loop().time() + 15
        await self.next_hop.close(self.url, connection, deadline=deadline)


def names(connection: Connection) -> list[str]:
    return [segment.name for segment in connection.route.segments]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(FakeAuthority(), stack, tmp_path)


@pytest.fixture
async def served(world: World) -> World:
    await world.stack.enter_async_context(world.registry())
    return world


async def test_one_node_gives_four_segments(served: World) -> None:
    await served.manager(1)
    forwarder = await served.forwarder(1)
    endpoint = await served.endpoint(1, "icmp")
    workload = await served.workload(1)
    answer = await workload.request("icmp")
    assert names(answer) == ["nsc-1", "nsmgr-1", "fwd-1", "nse-1"]
    assert (answer.route.index, answer.id, answer.state) == (0, "nsc-1-0", State.UP)
    assert answer.network_service_endpoint_name == "nse-1"
    assert (answer.payload, answer.labels) == ("IP", {"nodeName": "n1"})
    own = Path("/proc/self/ns/net").stat()  # noqa: ASYNC240
    assert forwarder.namespaces == [
        (own.st_dev, own.st_ino)
    ]  # the client's descriptor went through the manager
    assert endpoint.seen[0].labels == {"nodeName": "n1"}
    again = await workload.request("icmp", answer)
    assert [s.id for s in again.route.segments] == [s.id for s in answer.route.segments]
    assert len(endpoint.open) == 1
    await workload.close(again)
    assert endpoint.open == set()


async def test_two_nodes_give_six_segments(served: World) -> None:
    for number in (1, 2):
        await served.manager(number)
        await served.forwarder(number)
    endpoint = await served.endpoint(2, "icmp")
    workload = await served.workload(1)
    answer = await workload.request("icmp")
    assert names(answer) == ["nsc-1", "nsmgr-1", "fwd-1", "nsmgr-2", "fwd-2", "nse-2"]
    assert endpoint.seen[0].labels == {"nodeName": "n1"}
    await workload.close(answer)
    assert endpoint.open == set()


async def test_the_prefixes_of_the_file_reach_the_endpoint(served: World) -> None:
    made = served.directory / "config-1"
    made.mkdir()
    (made / "excluded_prefixes.yaml").write_text("prefixes: [172.16.0.0/12]")
    await served.manager(1)
    await served.forwarder(1)
    endpoint = await served.endpoint(1, "icmp")
    await (await served.workload(1)).request("icmp")
    assert endpoint.seen[0].ip.excluded_prefixes == ("172.16.0.0/12",)


async def test_another_forwarder_is_tried_and_the_connection_stays_with_it(served: World) -> None:
    await served.manager(1)
    broken = await served.forwarder(1, "fwd-a")
    await served.forwarder(1, "fwd-b")
    await served.endpoint(1, "icmp")

    async def refuse(incoming: Incoming) -> Connection:
        raise NsmError(Code.RESOURCE_EXHAUSTED, f"no room for {incoming.connection.id}")

    working, broken.request = broken.request, refuse  # type: ignore[method-assign]
    workload = await served.workload(1)
    answer = await workload.request("icmp")
    assert names(answer)[2] == "fwd-b"
    broken.request = working  # type: ignore[method-assign]
    assert names(await workload.request("icmp", answer))[2] == "fwd-b"


async def test_refreshes_and_new_clients_go_on_while_the_registry_is_away(world: World) -> None:
    async with world.registry():
        made = await world.manager(1)
        await world.forwarder(1)
        endpoint = await world.endpoint(1, "icmp")
        workload = await world.workload(1)
        answer = await workload.request("icmp")
        lost = made.mirror.watch_services(NetworkService())
        await anext(lost)
    with pytest.raises(NsmError, match="went away"):
        async with asyncio.timeout(10):
            await anext(lost)
    again = await workload.request("icmp", answer)
    assert again.network_service_endpoint_name == "nse-1"
    fresh = replace(workload, name="nsc-new")
    fresh.next_hop = NextHop("nsc-new", workload.node.channels)
    assert (await fresh.request("icmp")).network_service_endpoint_name == "nse-1"
    assert len(endpoint.open) == 2
    with pytest.raises(NsmError) as caught:
        await workload.request("unknown")
    assert caught.value.code is Code.UNAVAILABLE
    await fresh.next_hop.stop()


async def test_endpoints_return_to_a_registry_that_forgot_them(world: World) -> None:
    async with world.registry():
        await world.manager(1)
        await world.forwarder(1)
        await world.endpoint(1, "icmp")
    async with world.registry(world.registry_url) as catalogue:
        viewer = RegistryClient((await world.node("viewer")).channels, world.registry_url)
        async with asyncio.timeout(20):
            for name in ("fwd-1", "nse-1"):
                async with aclosing(viewer.watch_endpoints(NetworkServiceEndpoint(name=name))) as events:
                    assert (await anext(events)).network_service_endpoint.name == name
        assert catalogue.sizes["services"] == 1
        answer = await (await world.workload(1)).request("icmp")
        assert names(answer) == ["nsc-1", "nsmgr-1", "fwd-1", "nse-1"]


async def test_a_service_that_selects_others_closes_the_connection(served: World) -> None:
    made = await served.manager(1)
    await served.forwarder(1)
    endpoint = await served.endpoint(1, "icmp", labels={"v": "1"})
    workload = await served.workload(1)
    await workload.request("icmp")
    owner = await served.client_of(await served.node("endpoint/nse-1"), 1)
    only_v2 = Match({}, (Destination({"v": "2"}),), metadata={"p2p": "true"})
    await owner.register_service(NetworkService("icmp", "IP", (only_v2,)))
    async with asyncio.timeout(10):
        await endpoint.closed.wait()
    assert endpoint.open == set()
    async with asyncio.timeout(10):
        async for event in made.hop.monitor(MonitorScopeSelector(), cast("Call", None)):
            if not event.connections or event.type is EventType.DELETE:
                break
    assert made.hop.connections() == ()


async def test_what_other_nodes_and_tcp_callers_see(served: World) -> None:
    made = await served.manager(1)
    await served.endpoint(1, "icmp")
    public = made.local.public_url
    outside = RegistryClient((await served.node("viewer")).channels, served.registry_url)
    assert [e.url for e in await outside.find_endpoints(NetworkServiceEndpoint(name="nse-1"))] == [public]
    tcp = RegistryClient((await served.node("tcp")).channels, public)
    assert [e.url for e in await tcp.find_endpoints(NetworkServiceEndpoint(name="nse-1"))] == [public]
    inside = await served.client_of(await served.node("unix"), 1)
    (found,) = await inside.find_endpoints(NetworkServiceEndpoint(name="nse-1"))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(found.url.removeprefix("unix://"))
    (again,) = await inside.find_endpoints(NetworkServiceEndpoint(name="nse-1"))
    assert again.url == found.url
    assert found.network_service_labels == {"icmp": {"nodeName": "n1"}}
    assert found.path_ids == tuple(
        f"spiffe://example.org/{path}" for path in ("endpoint/nse-1", "manager/1", "registry")
    )


@pytest.mark.parametrize("url", ["unix:///run/other.sock", "inode://1/2", "http://x:1", ""])
async def test_urls_that_cannot_be_reached_from_here_are_refused_over_tcp(served: World, url: str) -> None:
    made = await served.manager(1)
    client = RegistryClient((await served.node("tcp")).channels, made.local.public_url)
    with pytest.raises(NsmError) as caught:
        await client.register_endpoint(
            NetworkServiceEndpoint(name="x", network_service_names=("s",), url=url)
        )
    assert caught.value.code in (Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT)
    assert await client.find_endpoints(NetworkServiceEndpoint(name="x")) == []


async def test_listening_sockets_may_be_used_by_everybody(served: World) -> None:
    path = served.directory / "made" / "deep" / "nsm.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    node = await served.node("manager/x")
    settings = ManagerSettings(
        name="x", registry_url=served.registry_url, excluded_prefixes_file=served.directory / "none"
    )
    async with manager(settings, node) as made:
        await made.start([f"unix://{path}", f"unix://{served.directory}/new/dir/nsm.sock"])
        assert path.stat().st_mode & 0o777 == 0o777
