"""An endpoint stays registered: refreshed in time, and again after the registry lost it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from nsm.model.endpoint import EndpointResponse, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError, denied
from nsm.service.registration import Registration

SECOND = 1_000_000_000
WANTED = NetworkServiceEndpoint(
    name="nse", network_service_names=("s",), url="unix:///nse", expiration_time=5
)
AWAY = NsmError(Code.UNAVAILABLE, "no registry")


class FakeRegistry:
    """Grants ``lifetime`` seconds by a clock that stands still; a watch ends when told."""

    def __init__(self, lifetime: float | None = None) -> None:
        self.lifetime = lifetime
        self.failures: list[NsmError] = []
        self.service_failures: list[NsmError] = []
        self.services: list[str] = []
        self.endpoints: list[NetworkServiceEndpoint] = []
        self.unregistered: list[str] = []
        self.watches: list[asyncio.Queue[EndpointResponse | NsmError | None]] = []
        self.news = asyncio.Condition()

    async def register_service(self, service: NetworkService) -> NetworkService:
        self.services.append(service.name)
        if self.service_failures:
            raise self.service_failures.pop(0)
        return service

    async def register_endpoint(self, endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint:
        if self.failures:
            raise self.failures.pop(0)
        self.endpoints.append(endpoint)
        await self._tell()
        expires = None if self.lifetime is None else round(self.lifetime * SECOND)
        return replace(endpoint, expiration_time=expires, initial_registration_time=7)

    async def unregister_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.unregistered.append(endpoint.name)

    async def watch_endpoints(
        self, query: NetworkServiceEndpoint, *, sockets: bool = True
    ) -> AsyncGenerator[EndpointResponse, None]:
        assert (query.name, sockets) == ("nse", False)
        events: asyncio.Queue[EndpointResponse | NsmError | None] = asyncio.Queue()
        self.watches.append(events)
        await self._tell()
        while (event := await events.get()) is not None:
            if isinstance(event, NsmError):
                raise event
            yield event

    async def until(self, registrations: int, watches: int) -> None:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(
                lambda: len(self.endpoints) >= registrations and len(self.watches) >= watches
            )

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()


def registration(registry: FakeRegistry) -> Registration:
    return Registration(registry, WANTED, (NetworkService("s"),), clock=lambda: 0.0, retry_delay=0.01)


async def test_services_first_then_the_endpoint_until_it_succeeds() -> None:
    registry = FakeRegistry()
    registry.failures = [AWAY, AWAY]
    kept = registration(registry)
    answer = await kept.start()
    assert registry.services == ["s", "s", "s"]
    assert answer.initial_registration_time == 7
    await kept.stop()
    assert registry.unregistered == ["nse"]


async def test_a_service_that_another_has_registered_is_served_all_the_same() -> None:
    registry = FakeRegistry()
    registry.service_failures = [denied("client_allowed", "'s' is registered by another")]
    kept = registration(registry)
    await kept.start()
    assert registry.services == ["s"]
    assert len(registry.endpoints) == 1
    await kept.stop()


async def test_a_service_that_cannot_be_registered_now_is_tried_again() -> None:
    registry = FakeRegistry()
    registry.service_failures = [AWAY]
    kept = registration(registry)
    await kept.start()
    assert registry.services == ["s", "s"]
    assert len(registry.endpoints) == 1
    await kept.stop()


async def test_a_refresh_sends_the_endpoint_as_wanted_and_keeps_the_watch() -> None:
    registry = FakeRegistry(lifetime=0.03)
    kept = registration(registry)
    await kept.start()
    await registry.until(registrations=4, watches=1)
    await kept.stop()
    assert len(registry.watches) == 1
    assert registry.services == ["s"]
    assert registry.endpoints[-1] == replace(WANTED, initial_registration_time=7)


@pytest.mark.parametrize(
    "event",
    [None, AWAY, EndpointResponse(WANTED, deleted=True)],
    ids=["stream ended", "stream broke", "removed"],
)
async def test_everything_is_registered_again_when_the_watch_is_lost(
    event: EndpointResponse | NsmError | None,
) -> None:
    registry = FakeRegistry()
    kept = registration(registry)
    await kept.start()
    await registry.until(registrations=1, watches=1)
    registry.failures = [AWAY]
    registry.watches[0].put_nowait(event)
    await registry.until(registrations=2, watches=2)
    await kept.stop()
    assert registry.services == ["s", "s", "s"]


async def test_other_names_and_updates_are_no_loss() -> None:
    registry = FakeRegistry()
    kept = registration(registry)
    await kept.start()
    await registry.until(registrations=1, watches=1)
    other = replace(WANTED, name="other")
    for event in (EndpointResponse(WANTED), EndpointResponse(other, deleted=True), None):
        registry.watches[0].put_nowait(event)
    await registry.until(registrations=2, watches=2)
    await kept.stop()
    assert len(registry.endpoints) == 2


async def test_stop_without_a_registry_ends_all_the_same() -> None:
    registry = FakeRegistry()
    kept = registration(registry)
    await kept.start()
    registry.failures = [AWAY]
    await kept.stop()
    assert registry.unregistered == []
    await kept.stop()
