"""Candidates of a connection by name and by service."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from nsm.model.connection import Connection
from nsm.model.endpoint import (
    Destination,
    EndpointResponse,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
)
from nsm.model.errors import Code, NsmError
from nsm.service.discovery import Discovery, RoundRobin
from nsm.session.matching import endpoint_matches, service_matches

SECOND = 1_000_000_000


class Known:
    """A registry with fixed entries and upstream's matching."""

    def __init__(self, services: list[NetworkService], endpoints: list[NetworkServiceEndpoint]) -> None:
        self.services = services
        self.endpoints = endpoints
        self.breaks = 0

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        return [service for service in self.services if service_matches(query, service)]

    async def find_endpoints(self, query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        return [endpoint for endpoint in self.endpoints if endpoint_matches(query, endpoint)]

    async def watch_endpoints(self, query: NetworkServiceEndpoint) -> AsyncGenerator[EndpointResponse, None]:
        """Each endpoint registered, gone and registered elsewhere; the first stream breaks after that."""
        for endpoint in await self.find_endpoints(query):
            yield EndpointResponse(endpoint)
            yield EndpointResponse(endpoint, deleted=True)
            yield EndpointResponse(replace(endpoint, url=f"{endpoint.url}-{self.breaks}"))
        self.breaks += 1
        if self.breaks == 1:
            raise NsmError(Code.UNAVAILABLE, "the registry went away")


def endpoint(name: str, expires: float | None = None, **labels: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=("s",),
        network_service_labels={"s": labels},
        url=f"unix:///{name}",
        expiration_time=None if expires is None else round(expires * SECOND),
    )


MATCH_V1 = Match({}, (Destination({"v": "1"}),))
DISCOVERY = Discovery(
    Known(
        [NetworkService("s", "IP", (MATCH_V1,)), NetworkService("empty", "ETHERNET")],
        [endpoint("a", v="1"), endpoint("b", v="2"), endpoint("old", 99, v="1"), endpoint("c", 101, v="1")],
    ),
    clock=lambda: 100.0,
)


async def test_by_service_only_live_matching_endpoints() -> None:
    found = await DISCOVERY.candidates(Connection(network_service="s"))
    assert [candidate.name for candidate in found.endpoints] == ["a", "c"]
    assert found.payload == "IP"


async def test_by_name_skips_matching_and_expiry() -> None:
    found = await DISCOVERY.candidates(Connection(network_service="s", network_service_endpoint_name="b"))
    assert [candidate.url for candidate in found.endpoints] == ["unix:///b"]


@pytest.mark.parametrize(
    ("connection", "field", "text"),
    [
        (Connection(network_service="x"), "connection.network_service", "'x' is not registered"),
        (Connection(network_service="s", payload="ETHERNET"), "connection.network_service", "ETHERNET"),
        (Connection(network_service="empty"), "connection.network_service", "it has no endpoint"),
        (
            Connection(network_service_endpoint_name="nobody"),
            "connection.network_service_endpoint_name",
            "'nobody' is not registered",
        ),
    ],
)
async def test_what_is_missing_is_named(connection: Connection, field: str, text: str) -> None:
    with pytest.raises(NsmError, match=text) as caught:
        await DISCOVERY.candidates(connection)
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, field)


def test_round_robin_starts_one_further_each_time_and_by_service() -> None:
    turns, three = RoundRobin(), [endpoint("a"), endpoint("b"), endpoint("c")]
    first = ["".join(e.name for e in turns.order("s", three)) for _ in range(4)]
    assert first == ["abc", "bca", "cab", "abc"]
    assert [e.name for e in turns.order("other", three)] == ["a", "b", "c"]
    assert turns.order("s", ()) == ()


async def test_arrivals_are_registrations_over_watches_that_break_or_end() -> None:
    discovery = Discovery(Known([], [endpoint("a"), endpoint("b")]))
    found = []
    async with aclosing(discovery.arrivals("a")) as urls:
        async for url in urls:
            found.append(url)
            if len(found) == 5:
                break
    assert found == ["unix:///a", "unix:///a-0", "unix:///a", "unix:///a-1", "unix:///a"]
