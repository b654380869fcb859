"""Keeps one endpoint and its services registered for as long as a daemon runs (reference §3.13).

Registered again at 2/3 of the lifetime the registry granted, and at once when the watch on our own name breaks or
says that we were removed: a registry that came back without us learns of us that way (trap 31).
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Protocol

import structlog

from nsm.model.endpoint import EndpointResponse, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.session.timing import RETRY_DELAY, registration_refresh_delay

UNREGISTER_TIMEOUT: Final = 5.0
"""Seconds a stopping daemon waits for the registry; the registration expires by itself otherwise."""

_LOG: Final = structlog.get_logger()


class Registry(Protocol):
    """What a registration asks of a registry; ``RegistryClient`` is one."""

    async def register_service(self, service: NetworkService) -> NetworkService:
        """Register a service."""

    async def register_endpoint(self, endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint:
        """Register an endpoint; the answer has its expiration."""

    async def unregister_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        """Remove an endpoint."""

    def watch_endpoints(
        self, query: NetworkServiceEndpoint, *, sockets: bool = True
    ) -> AsyncGenerator[EndpointResponse, None]:
        """What matches now, then every change, until the stream breaks."""


class Registration:
    """One endpoint, registered until ``stop``."""

    def __init__(
        self,
        registry: Registry,
        endpoint: NetworkServiceEndpoint,
        services: Sequence[NetworkService] = (),
        *,
        clock: Callable[[], float] = time.time,
        retry_delay: float = RETRY_DELAY,
    ) -> None:
        """``services`` are registered before the endpoint; ``clock`` gives Unix seconds."""
        self._registry = registry
        self._wanted = endpoint
        self._services = tuple(services)
        self._clock = clock
        self._retry_delay = retry_delay
        self._current: NetworkServiceEndpoint | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def endpoint(self) -> NetworkServiceEndpoint:
        """As the registry last answered; as wanted before that."""
        return self._current or self._wanted

    async def start(self) -> NetworkServiceEndpoint:
        """Register, trying again every 200 ms until it succeeds, then keep it so in the background."""
        await self._register(services=True)
        self._task = asyncio.create_task(self._keep(), name=f"registration {self._wanted.name}")
        self._task.add_done_callback(_report)
        return self.endpoint

    async def stop(self, *, unregister: bool = True) -> None:
        """End it; the registry is told unless ``unregister`` is false. Its failure is only logged."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        if not unregister or self._current is None:
            return
        try:
            async with asyncio.timeout(UNREGISTER_TIMEOUT):
                await self._registry.unregister_endpoint(self._current)
        except (NsmError, TimeoutError) as error:
            _LOG.warning("registration.unregister_failed", endpoint=self._wanted.name, error=str(error))
        self._current = None

    async def _keep(self) -> None:
        """Refresh when due, register everything again when the watch is lost."""
        loop = asyncio.get_running_loop()
        while True:
            opened = loop.time()
            watch = asyncio.create_task(self._watch(), name=f"watch of {self._wanted.name}")
            try:
                while not (await asyncio.wait({watch}, timeout=self._delay()))[0]:
                    await self._register(services=False)
                watch.result()
            finally:
                watch.cancel()
                await asyncio.wait({watch})
            await asyncio.sleep(max(0.0, self._retry_delay - (loop.time() - opened)))
            await self._register(services=True)

    def _delay(self) -> float | None:
        """Seconds until the next refresh, ``None`` = never."""
        delay = registration_refresh_delay(self.endpoint.expiration_time, self._clock())
        return None if math.isinf(delay) else max(delay, self._retry_delay)

    async def _register(self, *, services: bool) -> None:
        """Until it succeeds; the same failure is logged once."""
        logged = ""
        while True:
            try:
                for service in self._services if services else ():
                    await self._register_service(service)
                answer = await self._registry.register_endpoint(self._again())
            except NsmError as error:
                if str(error) != logged:
                    logged = str(error)
                    _LOG.warning("registration.failed", endpoint=self._wanted.name, error=logged)
                await asyncio.sleep(self._retry_delay)
                continue
            if logged or self._current is None or services:
                _LOG.info("registration.registered", endpoint=answer.name, url=answer.url)
            self._current = answer
            return

    async def _register_service(self, service: NetworkService) -> None:
        """A service that is another's already is served as that one has registered it (rule client_allowed)."""
        try:
            await self._registry.register_service(service)
        except NsmError as error:
            if error.code is not Code.PERMISSION_DENIED:
                raise
            _LOG.info("registration.service_not_ours", service=service.name, reason=str(error))

    def _again(self) -> NetworkServiceEndpoint:
        """What is sent: as wanted, so without an expiration (trap 29), with the time we were first registered."""
        if self._current is None:
            return self._wanted
        return replace(self._wanted, initial_registration_time=self._current.initial_registration_time)

    async def _watch(self) -> None:
        """Until the stream on our own name ends, breaks or says we are gone."""
        query = NetworkServiceEndpoint(name=self._wanted.name)
        try:
            async with aclosing(self._registry.watch_endpoints(query, sockets=False)) as events:
                async for event in events:
                    if event.deleted and event.network_service_endpoint.name == self._wanted.name:
                        _LOG.warning("registration.removed", endpoint=self._wanted.name)
                        return
        except NsmError as error:
            _LOG.info("registration.watch_lost", endpoint=self._wanted.name, error=str(error))


def _report(task: asyncio.Task[None]) -> None:
    """A keeper only ends by being cancelled; anything else is our fault and must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("registration.died", task=task.get_name(), exc_info=error)
