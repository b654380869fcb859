"""Scenario 11: which endpoint a client gets, told by who answered and by packets that reach it."""

import asyncio
from typing import Any

import pytest

from nsm.model.endpoint import Destination, Match, NetworkService
from nsm.service.config import NsmSettings
from nsm.service.daemon import open_node
from nsm.service.registry import RegistryClient
from nsmctl.lab import identities, namespaces
from tests.scenes import Scene, carried

OWN = {"NSM_REGISTER_SERVICE": "false"}
"""The service is registered by the test, with its matches."""


def in_registry(lab: Scene, work: Any) -> None:
    """Do ``work(client)`` at the registry, as the operator."""
    settings = NsmSettings(name=identities.OPERATOR, identity_dir=str(lab.near.identities), dial_timeout=5.0)

    async def run() -> None:
        async with open_node(settings) as node:
            client = RegistryClient(node.channels, lab.world.topology.registry)
            await work(client)
            await client.close()

    with namespaces.entered(lab.near.netns):
        asyncio.run(run())


@pytest.fixture
def service(lab: Scene) -> Any:
    """Register a service with matches; unregistered afterwards."""
    made: list[NetworkService] = []

    def register(name: str, *matches: Match) -> None:
        wanted = NetworkService(name=name, payload="IP", matches=matches)
        in_registry(lab, lambda client: client.register_service(wanted))
        made.append(wanted)

    yield register
    for each in made:
        in_registry(lab, lambda client, each=each: client.unregister_service(each))


def match(
    source: dict[str, str], destination: dict[str, str] | None, *, falls_through: bool = False
) -> Match:
    routes = () if destination is None else (Destination(destination_selector=destination),)
    return Match(source_selector=source, routes=routes, fall_through=falls_through)


def endpoint_of(connection: dict[str, Any]) -> str:
    name: str = connection["endpoint"]
    return name


def test_two_endpoints_take_turns(lab: Scene) -> None:
    lab.endpoint("one", services=("shared",), NSM_CIDR_PREFIX="[172.16.1.0/24],[fd00:172:1::/112]")
    lab.endpoint("two", services=("shared",), NSM_CIDR_PREFIX="[172.16.2.0/24],[fd00:172:2::/112]")
    connections = lab.client("caller", *["shared"] * 4)
    assert sorted(endpoint_of(connection) for connection in connections) == ["one", "one", "two", "two"]
    for connection in connections:
        carried(lab.probe(connection, "caller", endpoint_of(connection), rate=200, seconds=0.2))


def test_labels_choose_and_what_finds_nothing_falls_through(lab: Scene, service: Any) -> None:
    for number, color in enumerate(("red", "blue"), 1):
        pool = f"[172.16.{number}.0/24],[fd00:172:{number}::/112]"
        labels = f"color:{color}"
        lab.endpoint(color, services=("painted",), NSM_LABELS=labels, NSM_CIDR_PREFIX=pool, env=OWN)
    service(
        "painted",
        match({"wish": "warm"}, {"color": "red"}),
        match({"wish": "green"}, {"color": "green"}, falls_through=True),
        match({}, {"color": "blue"}),
    )
    urls = [f"kernel://painted/nsm-{i}?wish={wish}" for i, wish in enumerate(("warm", "green", "none"), 1)]
    connections = lab.client("caller", *urls)
    assert [endpoint_of(connection) for connection in connections] == ["red", "blue", "blue"]
    for connection in connections:
        carried(lab.probe(connection, "caller", endpoint_of(connection), rate=200, seconds=0.2))


def test_a_template_chooses_the_endpoint_of_the_clients_node(lab: Scene, service: Any) -> None:
    for node, number in ((lab.near, 1), (lab.far, 2)):
        pool = f"[172.16.{number}.0/24],[fd00:172:{number}::/112]"
        labels = f"nodeName:{node.name}"
        lab.endpoint(
            f"on-{node.name}",
            node=node,
            services=("near-me",),
            NSM_LABELS=labels,
            NSM_CIDR_PREFIX=pool,
            env=OWN,
        )
    service("near-me", match({}, {"nodeName": "{{.nodeName}}"}))
    for node in (lab.near, lab.far):
        (connection,) = lab.client(f"caller-{node.name}", "near-me", node=node)
        assert endpoint_of(connection) == f"on-{node.name}"
        assert len(connection["path"]) == 4, "nobody on another node"
        carried(lab.probe(connection, f"caller-{node.name}", f"on-{node.name}", rate=200, seconds=0.2))


def test_labels_that_select_nobody_are_refused_with_the_reason(lab: Scene, service: Any) -> None:
    lab.endpoint("red", services=("painted",), NSM_LABELS="color:red", env=OWN)
    service("painted", match({"wish": "green"}, {"color": "green"}))
    with lab.trying("caller", "kernel://painted/nsm-1?wish=green") as caller:
        failed = lab.wait(caller, "request.failed")
    assert failed["reason"].startswith("NOT_FOUND: connection.network_service: ")
    assert "none of 1 endpoints matches the labels" in failed["reason"]
