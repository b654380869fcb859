"""The endpoints that may serve a connection: found by name, or by service and matching (reference §3.9)."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from nsm.model.connection import Connection
from nsm.model.endpoint import EndpointResponse, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError
from nsm.session.matching import is_expired, select_endpoints
from nsm.session.timing import RETRY_DELAY

_LOG: Final = structlog.get_logger()


class Finder(Protocol):
    """What discovery asks of a registry; ``RegistryClient`` is one."""

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        """Every service the query matches."""

    async def find_endpoints(self, query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        """Every endpoint the query matches, each with a URL that can be dialled."""

    def watch_endpoints(self, query: NetworkServiceEndpoint) -> AsyncGenerator[EndpointResponse, None]:
        """What matches now, then every change, until the stream breaks."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Endpoints to try in turn, and the payload of their service ("" = found by name, not asked)."""

    payload: str
    endpoints: tuple[NetworkServiceEndpoint, ...]


class Discovery:
    """Asks the registry for the candidates of a connection."""

    def __init__(self, registry: Finder, *, clock: Callable[[], float] = time.time) -> None:
        self._registry = registry
        self._clock = clock

    async def candidates(self, connection: Connection) -> Candidates:
        """By endpoint name where the connection has one, else those its service's matches select.

        Raises:
            NsmError: NOT_FOUND naming what is not registered; what the registry answered otherwise.
        """
        if connection.network_service_endpoint_name:
            return Candidates("", (await self.by_name(connection.network_service_endpoint_name),))
        service, endpoints = await self._ask(connection)
        now = self._clock()
        alive = [endpoint for endpoint in endpoints if not is_expired(endpoint, now)]
        chosen = select_endpoints(service, alive, connection.labels)
        if not chosen:
            why = f"none of {len(alive)} endpoints matches the labels" if alive else "it has no endpoint"
            raise NsmError(
                Code.NOT_FOUND, f"network service {service.name!r}: {why}", field="connection.network_service"
            )
        return Candidates(service.payload, chosen)

    async def by_name(self, name: str) -> NetworkServiceEndpoint:
        """The endpoint of exactly that name. NsmError NOT_FOUND if there is none."""
        for endpoint in await self._registry.find_endpoints(NetworkServiceEndpoint(name=name)):
            if endpoint.name == name:
                return endpoint
        raise NsmError(
            Code.NOT_FOUND,
            f"network service endpoint {name!r} is not registered",
            field=ENDPOINT_FIELD,
        )

    async def arrivals(self, name: str) -> AsyncGenerator[str, None]:
        """The URL of the endpoint of that name: now, if it is registered, and each time it registers again."""
        loop = asyncio.get_running_loop()
        while True:
            opened = loop.time()
            try:
                async with aclosing(
                    self._registry.watch_endpoints(NetworkServiceEndpoint(name=name))
                ) as events:
                    async for event in events:
                        endpoint = event.network_service_endpoint
                        if endpoint.name == name and not event.deleted:
                            yield endpoint.url
            except NsmError as error:
                _LOG.debug("arrivals.watch_lost", endpoint=name, reason=str(error))
            await asyncio.sleep(max(0.0, RETRY_DELAY - (loop.time() - opened)))

    async def _ask(self, connection: Connection) -> tuple[NetworkService, list[NetworkServiceEndpoint]]:
        """Service and endpoints in one round trip; what the registry says about the service counts first."""
        name = connection.network_service
        service, endpoints = await asyncio.gather(
            self._service(name, connection.payload),
            self._registry.find_endpoints(NetworkServiceEndpoint(network_service_names=(name,))),
            return_exceptions=True,
        )
        if isinstance(service, BaseException):
            raise service
        if isinstance(endpoints, BaseException):
            raise endpoints
        return service, endpoints

    async def _service(self, name: str, payload: str) -> NetworkService:
        for service in await self._registry.find_services(NetworkService(name=name, payload=payload)):
            if service.name == name:
                return service
        suffix = f" with payload {payload}" if payload else ""
        raise NsmError(
            Code.NOT_FOUND,
            f"network service {name!r}{suffix} is not registered",
            field="connection.network_service",
        )


class RoundRobin:
    """A counter per service: each call starts one endpoint further (reference §3.9)."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def order(
        self, service: str, endpoints: Sequence[NetworkServiceEndpoint]
    ) -> tuple[NetworkServiceEndpoint, ...]:
        """``endpoints`` rotated so that they are tried in turn."""
        if not endpoints:
            return ()
        turn = self._turns.get(service, 0)
        self._turns[service] = turn + 1
        start = turn % len(endpoints)
        return (*endpoints[start:], *endpoints[:start])
