"""Registrations of a node: what goes on to the registry, and what stays while it is away."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controlplane.manager.labels import NodeLabels
from controlplane.manager.local import LocalEndpoints
from controlplane.manager.mirror import Mirror
from controlplane.manager.registry import NodeRegistry
from controlplane.registry.server import Arrival
from nsm.model.endpoint import EndpointQuery, EndpointResponse, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Token
from nsm.policy.rules import RegistryPolicies
from nsm.service.registry import RegistryClient
from nsm.session.registry_path import RegistryPath
from nsm.transport.call import Call

SECOND = 1_000_000_000
OURS = "tcp://10.0.0.1:5001"
ENDPOINT = NetworkServiceEndpoint(name="nse", network_service_names=("s",), url="inode://1/2")


class FakeClient:
    """The registry; ``error`` is what it answers."""

    url = "tcp://registry:1"

    def __init__(self) -> None:
        self.sent: list[NetworkServiceEndpoint] = []
        self.error: NsmError | None = None

    async def pass_on(
        self, _method: Any, endpoint: NetworkServiceEndpoint, path: RegistryPath
    ) -> tuple[NetworkServiceEndpoint, RegistryPath]:
        if self.error is not None:
            raise self.error
        self.sent.append(endpoint)
        return endpoint, path

    async def find_endpoints(self, _query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        if self.error is not None:
            raise self.error
        return self.sent[-1:]


class FakePolicies:
    def __init__(self) -> None:
        self.freed: asyncio.Queue[str] = asyncio.Queue()

    def unregistered(self, name: str) -> None:
        self.freed.put_nowait(name)


class World:
    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.remaining = 15.0
        self.socket = directory / "nse.sock"
        self.socket.touch()
        self.client = FakeClient()
        self.policies = FakePolicies()
        self.local = LocalEndpoints(OURS, self._dropped)
        registry = cast("RegistryClient", self.client)
        self.mirror = Mirror(registry)
        self.registry = NodeRegistry(
            registry,
            self.mirror,
            self.local,
            NodeLabels.of(node="n1", pod="", cluster=""),
            endpoints=cast("RegistryPolicies", self.policies),
            clock=lambda: self.now,
        )

    async def _dropped(self, url: str) -> None:
        assert url.startswith("unix://")

    def call(self) -> Call:
        async def receive_fd(_url: str) -> int:
            return os.open(self.socket, os.O_PATH)

        peer = SimpleNamespace(passes_fds=True)
        made = SimpleNamespace(
            peer=peer,
            remaining=lambda: self.remaining,
            receive_fd=receive_fd,
            send_fd=lambda _fd: "inode://3/4",
        )
        return cast("Call", made)

    async def register(self, endpoint: NetworkServiceEndpoint = ENDPOINT) -> NetworkServiceEndpoint:
        token = Token("t", round((self.now + 600) * SECOND))
        arrival = Arrival(RegistryPath(1, ("a", "b")), token, token, self.call())
        return (await self.registry.register_endpoint(endpoint, arrival))[0]

    async def find(self) -> list[EndpointResponse]:
        query = EndpointQuery(NetworkServiceEndpoint(name="nse"))
        found: AsyncIterator[EndpointResponse] = self.registry.find_endpoints(query, self.call())
        return [response async for response in found]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = World(tmp_path)
    yield made
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # pytest's own capture may come and go


async def test_the_registry_gets_our_url_and_labels_the_caller_its_own(world: World) -> None:
    answer = await world.register()
    (sent,) = world.client.sent
    assert sent.url == OURS
    assert sent.network_service_labels == {"s": {"nodeName": "n1"}}
    assert sent.expiration_time == 1060 * SECOND
    assert answer == replace(sent, url=ENDPOINT.url)
    (found,) = await world.find()
    assert found.network_service_endpoint.url == "inode://3/4"
    await world.registry.close()


async def test_a_refresh_while_the_registry_is_away_fails_but_keeps_the_endpoint(world: World) -> None:
    await world.register()
    world.client.error = NsmError(Code.UNAVAILABLE, "away")
    world.now += 50
    with pytest.raises(NsmError, match="away"):
        await world.register()
    (found,) = await world.find()
    assert found.network_service_endpoint.expiration_time == 1110 * SECOND
    await world.registry.close()


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.PERMISSION_DENIED])
async def test_a_first_registration_that_fails_leaves_nothing(world: World, code: Code) -> None:
    world.client.error = NsmError(code, "no")
    for _ in range(20):
        with pytest.raises(NsmError, match="no"):
            await world.register()
    assert world.local.get("nse") is None
    await world.registry.close()


async def test_a_refused_refresh_keeps_what_was_there(world: World) -> None:
    await world.register()
    world.client.error = NsmError(Code.PERMISSION_DENIED, "no")
    with pytest.raises(NsmError, match="no"):
        await world.register()
    known = world.local.get("nse")
    assert known is not None
    assert known.endpoint.expiration_time == 1060 * SECOND
    await world.registry.close()


async def test_the_end_of_a_registration_frees_socket_and_name(world: World) -> None:
    await world.register(replace(ENDPOINT, expiration_time=round((world.now + 0.01) * SECOND)))
    async with asyncio.timeout(10):
        assert await world.policies.freed.get() == "nse"
    assert world.local.get("nse") is None
    await world.registry.close()


@pytest.mark.parametrize("url", ["", "http://x:1", "unix:///nowhere/at/all"])
async def test_urls_nobody_can_dial_are_refused(world: World, url: str) -> None:
    with pytest.raises(NsmError) as caught:
        await world.register(replace(ENDPOINT, url=url))
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "network_service_endpoint.url")
    assert world.client.sent == []
