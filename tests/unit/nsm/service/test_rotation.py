"""A server rotates its SVID while clients stay connected: what it signs must fit the certificate each of them saw."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path as FilePath

import pytest

from controlplane.client.manager import NsmManager
from controlplane.client.wish import Wish
from controlplane.registry.catalogue import Catalogue
from controlplane.registry.server import RegistryServer, registry_policies
from controlplane.registry.store import MemoryStore
from nsm.identity.tokens import PathTokens
from nsm.model.connection import Connection
from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.errors import NsmError
from nsm.model.identity import Svid, Token, TokenSource
from nsm.policy.rules import RegistryPolicies
from nsm.service.config import REGISTRY_CLIENT_POLICIES, REGISTRY_SERVER_POLICIES
from nsm.service.daemon import Node
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.registry import RegistryClient
from nsm.transport.server import Server
from tests.fakes.identity import FakeAuthority, FakeIdentity
from tests.fakes.node import fake_node

ENDPOINT = NetworkServiceEndpoint(name="nse", network_service_names=("s",), url="tcp://10.0.0.1:1")
WISH = Wish("c", "c-0", "s", mechanism="NOOP")
MAKES = ["ours", "by the newest key"]


class NewestKey(PathTokens):
    """Signs as Go's components do: by the newest SVID, whatever the connection was made with."""

    def token(
        self, audience: str | None, peer_not_after: float | None = None, svid: Svid | None = None
    ) -> Token:
        return super().token(audience, peer_not_after)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


@asynccontextmanager
async def server_of(authority: FakeAuthority, make: str) -> AsyncIterator[tuple[Node, FakeIdentity]]:
    async with fake_node(authority, "server") as node:
        identity = node.identity
        assert isinstance(identity, FakeIdentity)
        tokens = node.tokens if make == "ours" else NewestKey(identity, max_lifetime=600)
        yield replace(node, tokens=tokens), identity


@pytest.mark.parametrize("make", MAKES)
async def test_registrations_go_on(authority: FakeAuthority, make: str) -> None:
    async with server_of(authority, make) as (node, identity), fake_node(authority, "nse") as mine:
        services, endpoints = registry_policies(node.verifier, REGISTRY_SERVER_POLICIES)
        catalogue = Catalogue(MemoryStore(), services=services, endpoints=endpoints)
        server = Server(identity)
        RegistryServer(
            catalogue, tokens=node.tokens, verifier=node.verifier, services=services, endpoints=endpoints
        ).serve(server)
        (url,) = await server.start(["tcp://127.0.0.1:0"])
        policies = RegistryPolicies(mine.verifier, REGISTRY_CLIENT_POLICIES)
        client = RegistryClient(mine.channels, url, policies=policies)
        await client.register_endpoint(ENDPOINT)
        for _ in range(2):
            identity.rotate()
            await client.register_endpoint(ENDPOINT)
        await client.close()
        await server.stop()
        await catalogue.close()


class Echo:
    """Takes every connection as it is."""

    def __init__(self) -> None:
        self.requests = 0

    async def request(self, incoming: Incoming) -> Connection:
        self.requests += 1
        return replace(incoming.connection, mechanism=incoming.preferences[0])

    async def close(self, closing: Closing) -> None:
        del closing


@asynccontextmanager
async def manager_at(
    authority: FakeAuthority, directory: FilePath, make: str, tokens: TokenSource | None = None
) -> AsyncIterator[tuple[NsmManager, Echo, HopServer, FakeIdentity]]:
    """A client's manager, and what stands behind it."""
    async with server_of(authority, make) as (node, identity), fake_node(authority, "c") as mine:
        role = Echo()
        hop = HopServer("m", role, tokens=tokens or node.tokens, policies=node.policies, is_endpoint=True)
        server = Server(identity)
        hop.serve(server)
        (url,) = await server.start([f"unix://{directory}/m.sock"])
        manager = NsmManager("c", url, mine, lambda *_: None)
        yield manager, role, hop, identity
        await manager.stop()
        await hop.stop()
        await server.stop()


@pytest.mark.parametrize("make", MAKES)
async def test_a_connection_is_refreshed(authority: FakeAuthority, make: str, tmp_path: FilePath) -> None:
    async with manager_at(authority, tmp_path, make) as (manager, role, hop, identity):
        deadline = asyncio.get_running_loop().time() + 10
        connection = await manager.request(WISH, WISH.first(), deadline=deadline)
        for _ in range(2):
            identity.rotate()
            connection = await manager.request(WISH, connection, deadline=deadline)
        assert len(hop.connections()) == 1
        assert role.requests == (3 if make == "ours" else 5), "asked again only where the key was not shown"


async def test_a_key_that_never_fits_is_refused(authority: FakeAuthority, tmp_path: FilePath) -> None:
    stranger = NewestKey(authority.identity("server"), max_lifetime=600)
    async with manager_at(authority, tmp_path, "ours", stranger) as (manager, role, hop, _):
        with pytest.raises(NsmError, match="next_token_signed"):
            await manager.request(WISH, WISH.first(), deadline=asyncio.get_running_loop().time() + 10)
        assert role.requests == 2
        assert hop.connections() == (), "what the answer brought is closed again"
