"""The registry over real sockets, with the client of the daemons and with calls made by hand."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from controlplane.registry.catalogue import Catalogue
from controlplane.registry.server import RegistryServer, registry_policies
from controlplane.registry.store import MemoryStore, SqliteStore, Store
from nsm.model.endpoint import EndpointResponse, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.policy.rules import RegistryPolicies
from nsm.service.config import REGISTRY_CLIENT_POLICIES, REGISTRY_SERVER_POLICIES
from nsm.service.daemon import Node
from nsm.service.registration import Registration
from nsm.service.registry import RegistryClient
from nsm.session.registry_path import RegistryPath, path_metadata, read_path
from nsm.transport.server import Server
from nsm.wire import methods
from tests.fakes.identity import FakeAuthority
from tests.fakes.node import fake_node

SECOND = 1_000_000_000
ENDPOINT = NetworkServiceEndpoint(
    name="nse", network_service_names=("s",), network_service_labels={"s": {"a": "b"}}, url="tcp://10.0.0.1:1"
)


@dataclass
class World:
    """A registry, and clients with identities of their own."""

    authority: FakeAuthority
    stack: AsyncExitStack
    url: str = ""

    async def node(self, path: str) -> Node:
        return await self.stack.enter_async_context(fake_node(self.authority, path))

    async def client(self, path: str) -> RegistryClient:
        node = await self.node(path)
        policies = RegistryPolicies(node.verifier, REGISTRY_CLIENT_POLICIES)
        return RegistryClient(node.channels, self.url, policies=policies)


@asynccontextmanager
async def registry(world: World, store: Store, url: str = "tcp://127.0.0.1:0") -> AsyncIterator[Catalogue]:
    async with fake_node(world.authority, "registry") as node:
        services, endpoints = registry_policies(node.verifier, REGISTRY_SERVER_POLICIES)
        catalogue = Catalogue(store, services=services, endpoints=endpoints)
        server = Server(node.identity)
        RegistryServer(
            catalogue, tokens=node.tokens, verifier=node.verifier, services=services, endpoints=endpoints
        ).serve(server)
        await catalogue.restore()
        (world.url,) = await server.start([url])
        try:
            yield catalogue
        finally:
            await server.stop()
            await catalogue.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(FakeAuthority(), stack)


@pytest.fixture
async def served(world: World) -> AsyncIterator[World]:
    async with registry(world, MemoryStore()):
        yield world


async def test_services_get_the_default_payload_and_are_found(served: World) -> None:
    client = await served.client("nse")
    answer = await client.register_service(NetworkService("s"))
    assert answer.payload == "IP"
    assert answer.path_ids == ("spiffe://example.org/nse", "spiffe://example.org/registry")
    await client.register_service(NetworkService("e", "ETHERNET"))
    assert [s.name for s in await client.find_services(NetworkService())] == ["s", "e"]
    assert [s.name for s in await client.find_services(NetworkService(payload="ETHERNET"))] == ["e"]
    assert await client.find_services(NetworkService("ss")) == []
    await client.unregister_service(NetworkService("s"))
    await client.unregister_service(NetworkService("s"))
    assert [s.name for s in await client.find_services(NetworkService())] == ["e"]


async def test_endpoints_get_times_and_keep_the_first(served: World) -> None:
    client = await served.client("nse")
    first = await client.register_endpoint(ENDPOINT)
    assert first.expiration_time is not None
    assert first.initial_registration_time is not None
    assert 59 * SECOND < first.expiration_time - first.initial_registration_time <= 60 * SECOND
    again = await client.register_endpoint(replace(first, expiration_time=None))
    assert again.expiration_time is not None
    assert again.expiration_time > first.expiration_time
    assert again.initial_registration_time == first.initial_registration_time
    kept = await client.register_endpoint(first)  # who does not clear it keeps the earlier one
    assert kept.expiration_time == first.expiration_time
    assert [e.url for e in await client.find_endpoints(NetworkServiceEndpoint(url="10.0.0"))] == [
        ENDPOINT.url
    ]


async def test_the_path_comes_back_to_its_caller(served: World) -> None:
    node = await served.node("nse")
    reply = await node.channels.get(served.url).unary(
        methods.NSE_REGISTER, ENDPOINT, timeout=15, metadata=path_metadata(RegistryPath())
    )
    path = read_path(reply.metadata)
    assert path is not None
    assert path.index == 0
    subjects = [claims.sub for token in path.tokens if (claims := node.verifier.claims(token))]
    assert subjects == ["spiffe://example.org/nse", "spiffe://example.org/registry"]


async def test_a_name_belongs_to_who_registered_it_until_it_is_unregistered(served: World) -> None:
    owner, other = await served.client("nse"), await served.client("other")
    await owner.register_endpoint(ENDPOINT)
    for attempt in (other.register_endpoint, other.unregister_endpoint):
        with pytest.raises(NsmError) as caught:
            await attempt(ENDPOINT)
        assert caught.value.code is Code.PERMISSION_DENIED
        assert "client_allowed" in caught.value.message
    await owner.unregister_endpoint(ENDPOINT)
    await other.register_endpoint(ENDPOINT)


async def test_services_and_endpoints_of_one_name_have_their_own_owners(served: World) -> None:
    await (await served.client("a")).register_service(NetworkService("nse"))
    await (await served.client("b")).register_endpoint(ENDPOINT)


async def test_without_a_path_it_is_denied_but_find_needs_none(served: World) -> None:
    channel = (await served.node("nse")).channels.get(served.url)
    with pytest.raises(NsmError) as caught:
        await channel.unary(methods.NSE_REGISTER, ENDPOINT, timeout=15)
    assert caught.value.code is Code.PERMISSION_DENIED
    assert await (await served.client("nse")).find_endpoints(NetworkServiceEndpoint()) == []


@pytest.mark.parametrize(
    ("endpoint", "code", "text"),
    [
        (replace(ENDPOINT, name=""), Code.INVALID_ARGUMENT, "name"),
        (replace(ENDPOINT, name="n" * 1025), Code.INVALID_ARGUMENT, "1024"),
        (replace(ENDPOINT, name="nse@other.org"), Code.UNIMPLEMENTED, "gateway"),
        (replace(ENDPOINT, network_service_names=("s@other.org",)), Code.UNIMPLEMENTED, "gateway"),
    ],
)
async def test_names_that_cannot_be_are_refused(
    served: World, endpoint: NetworkServiceEndpoint, code: Code, text: str
) -> None:
    client = await served.client("nse")
    with pytest.raises(NsmError, match=text) as caught:
        await client.register_endpoint(endpoint)
    assert caught.value.code is code
    assert await client.find_endpoints(NetworkServiceEndpoint()) == []


async def test_a_malformed_path_is_an_invalid_argument(served: World) -> None:
    channel = (await served.node("nse")).channels.get(served.url)
    with pytest.raises(NsmError, match="JSON") as caught:
        await channel.unary(methods.NSE_REGISTER, ENDPOINT, timeout=15, metadata=(("path", "{"),))
    assert caught.value.code is Code.INVALID_ARGUMENT


async def next_event(events: AsyncIterator[EndpointResponse]) -> tuple[str, bool]:
    async with asyncio.timeout(10):
        event = await anext(events)
    return event.network_service_endpoint.name, event.deleted


async def test_a_watch_stays_open_and_tells_every_change_that_matches(served: World) -> None:
    client = await served.client("nse")
    await client.register_endpoint(ENDPOINT)
    async with aclosing(
        client.watch_endpoints(NetworkServiceEndpoint(network_service_names=("s",)))
    ) as events:
        assert await next_event(events) == ("nse", False)
        await client.register_endpoint(replace(ENDPOINT, name="other", network_service_names=("t",)))
        await client.register_endpoint(replace(ENDPOINT, name="nse-2"))
        assert await next_event(events) == ("nse-2", False)
        await client.unregister_endpoint(NetworkServiceEndpoint(name="nse"))
        assert await next_event(events) == ("nse", True)


async def test_a_registration_that_is_over_is_removed(served: World) -> None:
    client = await served.client("nse")
    await client.register_endpoint(ENDPOINT)
    async with aclosing(client.watch_endpoints(NetworkServiceEndpoint(name="nse"))) as events:
        assert await next_event(events) == ("nse", False)
        await client.register_endpoint(replace(ENDPOINT, expiration_time=time.time_ns() + 10**8))
        while not (await next_event(events))[1]:
            pass
    await (await served.client("other")).register_endpoint(ENDPOINT)  # the name is free again


async def test_registrations_and_owners_survive_a_restart(world: World, tmp_path: Path) -> None:
    async with registry(world, await SqliteStore.open(tmp_path / "db")):
        owner = await world.client("nse")
        await owner.register_service(NetworkService("s"))
        before = await owner.register_endpoint(ENDPOINT)
    async with registry(world, await SqliteStore.open(tmp_path / "db"), world.url):
        other = await world.client("other")
        assert await other.find_endpoints(NetworkServiceEndpoint()) == [before]
        assert [s.name for s in await other.find_services(NetworkService())] == ["s"]
        with pytest.raises(NsmError, match="client_allowed"):
            await other.register_endpoint(ENDPOINT)
        with pytest.raises(NsmError, match="client_allowed"):
            await other.register_service(NetworkService("s"))


async def test_what_expired_while_the_registry_was_away_is_not_restored(world: World, tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "db")
    await store.save_endpoint(replace(ENDPOINT, expiration_time=1, path_ids=("spiffe://example.org/nse",)))
    async with registry(world, store):
        other = await world.client("other")
        assert await other.find_endpoints(NetworkServiceEndpoint()) == []
        await other.register_endpoint(ENDPOINT)


async def test_a_registration_returns_after_the_registry_forgot_it(world: World) -> None:
    async with registry(world, MemoryStore()):
        client = await world.client("nse")
        kept = Registration(client, ENDPOINT, (NetworkService("s"),))
        await kept.start()
        async with aclosing(client.watch_endpoints(NetworkServiceEndpoint())) as events:
            assert await next_event(events) == ("nse", False)
    async with registry(world, MemoryStore(), world.url):
        viewer = await world.client("viewer")
        async with aclosing(viewer.watch_endpoints(NetworkServiceEndpoint(name="nse"))) as events:
            assert await next_event(events) == ("nse", False)
            assert [s.name for s in await viewer.find_services(NetworkService())] == ["s"]
            await kept.stop()
            assert await next_event(events) == ("nse", True)


async def test_a_full_disk_refuses_writes_and_nothing_else(world: World, tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "db")
    async with registry(world, store):
        client = await world.client("nse")
        await client.register_endpoint(ENDPOINT)
        await store._connection.execute_fetchall("PRAGMA max_page_count = 4")
        big = replace(ENDPOINT, name="big", network_service_labels={"s": {"k": "x" * 100_000}})
        with pytest.raises(NsmError) as caught:
            await client.register_endpoint(big)
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert [e.name for e in await client.find_endpoints(NetworkServiceEndpoint())] == ["nse"]
        await store._connection.execute_fetchall("PRAGMA max_page_count = 1000")
        await client.register_endpoint(big)
