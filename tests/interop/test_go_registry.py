"""Our registry client with the Go registry: register, refresh, find, watch, path metadata, policies, unregister."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nsm.identity.authority import create_authority, save_authority
from nsm.identity.service import IdentityService, Places
from nsm.model.endpoint import EndpointResponse, Match, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.policy.rules import REGISTRY_CLIENT_MASKS, RegistryPolicies
from nsm.service.config import NsmSettings
from nsm.service.daemon import open_node
from nsm.service.registry import RegistryClient
from nsm.session.registry_path import RegistryPath
from nsm.wire import methods
from nsmctl.lab import namespaces
from nsmctl.lab.processes import kill, spawn

from . import peers
from .test_go_registry_with_our_identity import free_port

pytestmark = peers.needed

REGISTRY = "spiffe://example.org/registry/registry"
ALICE = "spiffe://example.org/endpoint/alice"


@pytest.fixture
async def identities(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of the Workload API sockets of the registry and of two endpoints."""
    save_authority(tmp_path / "authority.pem", create_authority("example.org"))
    names = ("registry/registry", "endpoint/alice", "endpoint/bob")
    entries = [{"spiffe_id": f"spiffe://example.org/{name}"} for name in names]
    (tmp_path / "identities.yaml").write_text(yaml.safe_dump({"entries": entries}))
    service = IdentityService(
        Places(tmp_path / "identities.yaml", tmp_path / "authority.pem", tmp_path / "s")
    )
    await service.start()
    yield tmp_path / "s"
    await service.stop()


@pytest.fixture
async def registry(identities: Path, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a Go registry."""
    url = f"tcp://127.0.0.1:{free_port()}"
    program = peers.find(peers.REGISTRY)
    assert program is not None
    env = {"NSM_LISTEN_ON": url, "SPIFFE_ENDPOINT_SOCKET": f"unix://{identities}/registry.sock"}
    process = spawn(
        "registry", [program], netns=namespaces.OWN, log=tmp_path / "log", env=env, mark=f"reg{os.getpid()}"
    )
    try:
        await asyncio.to_thread(peers.wait_lines, process, peers.SERVES[peers.REGISTRY])
        yield url
    finally:
        kill(process)


@asynccontextmanager
async def client_of(url: str, identities: Path, name: str) -> AsyncIterator[RegistryClient]:
    async with open_node(NsmSettings(name=name, identity_dir=str(identities))) as node:
        policies = RegistryPolicies(node.verifier, REGISTRY_CLIENT_MASKS)
        client = RegistryClient(node.channels, url, policies=policies)
        yield client
        await client.close()


@pytest.fixture
async def alice(registry: str, identities: Path) -> AsyncIterator[RegistryClient]:
    """Our client, with the policies that judge every answer's path."""
    async with client_of(registry, identities, "alice") as client:
        yield client


def endpoint(name: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=("weather",),
        network_service_labels={"weather": {"app": "sun"}},
        url="tcp://192.0.2.7:5001",
    )


async def test_a_service_is_registered_and_found_with_the_registrys_payload(alice: RegistryClient) -> None:
    match = Match(source_selector={"a": "b"})
    stored = await alice.register_service(NetworkService(name="weather", matches=(match,)))
    assert stored.payload == "IP"
    assert stored.path_ids == (ALICE, REGISTRY)
    assert await alice.find_services(NetworkService(name="weather", payload="IP")) == [stored]
    assert await alice.find_services(NetworkService(name="weath")) == []
    await alice.unregister_service(NetworkService(name="weather"))
    assert await alice.find_services(NetworkService(name="weather")) == []


async def test_an_endpoint_is_found_by_name_part_of_its_url_services_and_labels(
    alice: RegistryClient,
) -> None:
    before = time.time()
    stored = await alice.register_endpoint(endpoint("east"))
    assert stored.path_ids == (ALICE, REGISTRY)
    assert stored.expiration_time is not None
    assert before < stored.expiration_time / 1e9 < time.time() + 61
    for query in (
        NetworkServiceEndpoint(name="east"),
        NetworkServiceEndpoint(url="192.0.2.7"),
        NetworkServiceEndpoint(network_service_names=("weather",)),
        NetworkServiceEndpoint(network_service_labels={"weather": {"app": "sun"}}),
    ):
        assert [found.name for found in await alice.find_endpoints(query)] == ["east"]
    assert await alice.find_endpoints(NetworkServiceEndpoint(name="eas")) == []
    again = await alice.register_endpoint(replace(stored, expiration_time=None))
    assert again.initial_registration_time == stored.initial_registration_time
    assert again.expiration_time is not None
    assert again.expiration_time >= stored.expiration_time


async def test_the_path_comes_back_in_the_metadata_and_is_sent_again(alice: RegistryClient) -> None:
    _, first = await alice.pass_on(methods.NSE_REGISTER, endpoint("path"), RegistryPath())
    assert (first.index, len(first.tokens)) == (0, 2)
    assert all(first.tokens)
    _, second = await alice.pass_on(methods.NSE_REGISTER, endpoint("path"), first)
    assert (second.index, len(second.tokens)) == (0, 2)


async def test_a_watch_tells_what_comes_changes_and_goes(alice: RegistryClient) -> None:
    await alice.register_endpoint(endpoint("watched"))
    query = NetworkServiceEndpoint(network_service_names=("weather",))
    async with asyncio.timeout(30), aclosing(alice.watch_endpoints(query)) as events:
        assert await _next(events) == ("watched", False)
        await alice.register_endpoint(endpoint("later"))
        assert await _next(events) == ("later", False)
        await alice.unregister_endpoint(endpoint("watched"))
        assert await _next(events) == ("watched", True)


async def test_a_name_belongs_to_who_registered_it_first(
    alice: RegistryClient, registry: str, identities: Path
) -> None:
    await alice.register_endpoint(endpoint("mine"))
    async with client_of(registry, identities, "bob") as bob:
        with pytest.raises(NsmError) as refusal:
            await bob.register_endpoint(endpoint("mine"))
    assert refusal.value.code is Code.PERMISSION_DENIED


async def _next(events: AsyncIterator[EndpointResponse]) -> tuple[str, bool]:
    event = await anext(events)
    return event.network_service_endpoint.name, event.deleted
