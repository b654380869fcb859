"""The copy of the registry: answers while it is current, asks when it is not, goes on when the registry is away."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import cast

import pytest

from controlplane.manager.mirror import LONGEST_PAUSE, Mirror
from controlplane.manager.service_watch import ServiceWatch
from nsm.model.connection import Connection
from nsm.model.endpoint import (
    Destination,
    EndpointResponse,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceResponse,
)
from nsm.model.errors import Code, NsmError
from nsm.service.registry import RegistryClient
from nsm.session.matching import endpoint_matches, service_matches

SERVICE = NetworkService("s", "IP")
ENDPOINT = NetworkServiceEndpoint(
    name="nse", network_service_names=("s",), network_service_labels={"s": {"v": "1"}}
)
AWAY = NsmError(Code.UNAVAILABLE, "no registry")


class FakeRegistry:
    """Stands in for RegistryClient; ``fail`` ends the watches and refuses every call until ``come_back``."""

    url = "tcp://registry:1"

    def __init__(self) -> None:
        self.services: dict[str, NetworkService] = {}
        self.endpoints: dict[str, NetworkServiceEndpoint] = {}
        self.asked: list[str] = []
        self.is_away = False
        self._watches: list[asyncio.Queue[NetworkServiceResponse | EndpointResponse | None]] = []

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        self.asked.append(f"service {query.name}")
        if self.is_away:
            raise NsmError(AWAY.code, AWAY.message)
        return [service for service in self.services.values() if service_matches(query, service)]

    async def find_endpoints(self, query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        self.asked.append(f"endpoint {query.name}")
        if self.is_away:
            raise NsmError(AWAY.code, AWAY.message)
        return [endpoint for endpoint in self.endpoints.values() if endpoint_matches(query, endpoint)]

    async def watch_services(self, query: NetworkService) -> AsyncGenerator[NetworkServiceResponse, None]:
        assert query == NetworkService()
        async for event in self._events([NetworkServiceResponse(s) for s in self.services.values()]):
            if isinstance(event, NetworkServiceResponse):
                yield event

    async def watch_endpoints(
        self, query: NetworkServiceEndpoint, *, sockets: bool = True
    ) -> AsyncGenerator[EndpointResponse, None]:
        assert (query, sockets) == (NetworkServiceEndpoint(), False)
        async for event in self._events([EndpointResponse(e) for e in self.endpoints.values()]):
            if isinstance(event, EndpointResponse):
                yield event

    async def _events(
        self, current: list[NetworkServiceResponse] | list[EndpointResponse]
    ) -> AsyncGenerator[NetworkServiceResponse | EndpointResponse, None]:
        if self.is_away:
            raise NsmError(AWAY.code, AWAY.message)
        events: asyncio.Queue[NetworkServiceResponse | EndpointResponse | None] = asyncio.Queue()
        self._watches.append(events)
        for event in current:
            yield event
        while (news := await events.get()) is not None:
            yield news
        raise NsmError(AWAY.code, AWAY.message)

    def tell(self, event: NetworkServiceResponse | EndpointResponse) -> None:
        for watch in self._watches:
            watch.put_nowait(event)

    def go(self) -> None:
        self.is_away = True
        for watch in self._watches:
            watch.put_nowait(None)
        self._watches.clear()


async def current(mirror: Mirror) -> None:
    async with asyncio.timeout(10):
        await mirror._current.wait()


async def lose(mirror: Mirror, registry: FakeRegistry) -> None:
    """The registry goes away; returns when the mirror knows, as whoever watches it does."""
    watching = mirror.watch_services(NetworkService())
    async with asyncio.timeout(10):
        await anext(watching)
        registry.go()
        with pytest.raises(NsmError, match="went away"):
            await anext(watching)
    assert not mirror.is_current


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    made.services["s"], made.endpoints["nse"] = SERVICE, ENDPOINT
    return made


@pytest.fixture
def mirror(registry: FakeRegistry) -> Mirror:
    return Mirror(cast("RegistryClient", registry), retry_delay=0.005)


async def test_what_is_known_is_not_asked_for(mirror: Mirror, registry: FakeRegistry) -> None:
    mirror.start()
    await current(mirror)
    registry.asked.clear()
    assert await mirror.find_services(NetworkService("s")) == [SERVICE]
    assert await mirror.find_endpoints(NetworkServiceEndpoint(network_service_names=("s",))) == [ENDPOINT]
    assert registry.asked == []
    assert await mirror.find_services(NetworkService("t")) == []
    assert registry.asked == ["service t"]
    await mirror.stop()


async def test_before_it_is_current_the_registry_is_asked(mirror: Mirror, registry: FakeRegistry) -> None:
    assert await mirror.find_services(NetworkService("s")) == [SERVICE]
    assert registry.asked == ["service s"]


async def test_while_the_registry_is_away_what_was_known_still_is(
    mirror: Mirror, registry: FakeRegistry
) -> None:
    mirror.start()
    await current(mirror)
    await lose(mirror, registry)
    assert await mirror.find_services(NetworkService("s")) == [SERVICE]
    assert await mirror.find_endpoints(NetworkServiceEndpoint(name="nse")) == [ENDPOINT]
    with pytest.raises(NsmError, match="no registry"):
        await mirror.find_services(NetworkService("t"))
    await mirror.stop()


async def test_what_went_while_the_registry_was_away_is_gone_after_its_return(
    mirror: Mirror, registry: FakeRegistry
) -> None:
    mirror.start()
    await current(mirror)
    await lose(mirror, registry)
    registry.endpoints = {"new": replace(ENDPOINT, name="new")}
    registry.is_away = False
    await current(mirror)
    assert set(mirror.endpoints) == {"new"}
    await mirror.stop()


async def test_watches_of_the_copy_end_with_the_registrys(mirror: Mirror, registry: FakeRegistry) -> None:
    mirror.start()
    await current(mirror)
    events = mirror.watch_endpoints(NetworkServiceEndpoint(name="nse"))
    async with asyncio.timeout(10):
        assert await anext(events) == (ENDPOINT, False)
        registry.tell(EndpointResponse(ENDPOINT, deleted=True))
        assert await anext(events) == (ENDPOINT, True)
        registry.go()
        with pytest.raises(NsmError) as caught:
            await anext(events)
        assert caught.value.code is Code.UNAVAILABLE
        with pytest.raises(NsmError):
            await anext(mirror.watch_services(NetworkService()))
    await mirror.stop()


async def test_only_a_service_that_no_longer_selects_the_endpoint_closes(
    mirror: Mirror, registry: FakeRegistry
) -> None:
    closed: asyncio.Queue[str] = asyncio.Queue()

    chosen = Connection(id="1", network_service="s", network_service_endpoint_name="nse")
    others = (
        replace(chosen, id="2", network_service_endpoint_name="gone"),
        replace(chosen, id="3", network_service="t"),
    )
    watch = ServiceWatch(mirror, lambda: (chosen, *others), closed.put)
    mirror.start()
    await current(mirror)
    assert watch.mismatched() == []
    v1, v2 = (Match({}, (Destination({"v": version}),)) for version in "12")
    registry.tell(NetworkServiceResponse(replace(SERVICE, matches=(v1,))))
    registry.tell(NetworkServiceResponse(replace(SERVICE, matches=(v2,))))
    async with asyncio.timeout(10):
        assert await closed.get() == "1"
    assert closed.empty()
    await watch.stop()
    await mirror.stop()


async def test_a_registry_that_stays_away_is_asked_once_a_second_and_a_new_loss_begins_anew(
    registry: FakeRegistry,
) -> None:
    """Whoever refuses us for good, a registry of a domain that trusts us no longer, records every try."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            registry.is_away = False
        await asyncio.sleep(0)

    mirror = Mirror(cast("RegistryClient", registry), retry_delay=0.2, sleep=sleep)
    registry.is_away = True
    mirror.start()
    await current(mirror)
    assert pauses == [0.2, 0.4, 0.8, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    await lose(mirror, registry)
    registry.is_away = False
    await current(mirror)
    assert pauses[6] == 0.2
    await mirror.stop()
