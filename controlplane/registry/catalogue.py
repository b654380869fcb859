"""The registry itself: every entry in memory, written through to the store, watched and expired (reference §3.13)."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

import structlog

from controlplane.registry.expiry import ExpiryTimers
from controlplane.registry.queues import NameQueues
from controlplane.registry.server import Arrival
from controlplane.registry.store import Store
from controlplane.registry.watch import Hub
from nsm.model.endpoint import (
    EndpointQuery,
    EndpointResponse,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import IP
from nsm.policy.rules import RegistryPolicies
from nsm.session.matching import endpoint_matches, is_expired, service_matches
from nsm.session.registry_path import RegistryPath
from nsm.session.timing import registration_expiry, unregister_time
from nsm.transport.call import Call

_SECOND_NS: Final = 1_000_000_000
_LOG: Final = structlog.get_logger()


class Catalogue:
    """The backend of ``nsm-registry``. An endpoint's name is free again when it has expired or is unregistered."""

    def __init__(
        self,
        store: Store,
        *,
        services: RegistryPolicies,
        endpoints: RegistryPolicies,
        lifetime: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``lifetime``: longest registration in seconds; ``clock`` gives Unix seconds."""
        self._store = store
        self._service_policies = services
        self._endpoint_policies = endpoints
        self._lifetime = lifetime
        self._clock = clock
        self._services: dict[str, NetworkService] = {}
        self._endpoints: dict[str, NetworkServiceEndpoint] = {}
        self._service_hub: Hub[NetworkService] = Hub()
        self._endpoint_hub: Hub[NetworkServiceEndpoint] = Hub()
        self._queues = NameQueues()
        self._timers = ExpiryTimers(self._expire, clock)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of entries and watchers, for the log."""
        return {
            "services": len(self._services),
            "endpoints": len(self._endpoints),
            "watchers": len(self._service_hub) + len(self._endpoint_hub),
        }

    async def restore(self) -> None:
        """Take over what the store has, owners included; what expired meanwhile is removed."""
        contents = await self._store.load()
        for service in contents.services:
            self._services[service.name] = service
            self._service_policies.registered(service.name, service.path_ids)
        now = self._clock()
        for endpoint in contents.endpoints:
            if is_expired(endpoint, now):
                await self._forget_stored(endpoint.name)
                continue
            self._endpoints[endpoint.name] = endpoint
            self._endpoint_policies.registered(endpoint.name, endpoint.path_ids)
            if endpoint.expiration_time is not None:
                self._timers.set(endpoint.name, endpoint.expiration_time / _SECOND_NS)

    async def register_service(
        self, service: NetworkService, arrival: Arrival
    ) -> tuple[NetworkService, RegistryPath]:
        """Store it; an empty payload becomes ``IP``."""
        service = replace(service, payload=service.payload or IP)
        await self._store.save_service(service)
        self._services[service.name] = service
        self._service_hub.publish(service.name, service)
        return service, arrival.path

    async def unregister_service(self, service: NetworkService, arrival: Arrival) -> RegistryPath:
        """Remove it."""
        if service.name in self._services:
            await self._store.remove_service(service.name)
            known = self._services.pop(service.name)
            self._service_hub.publish(known.name, known, deleted=True)
        return arrival.path

    async def find_services(
        self, query: NetworkServiceQuery, call: Call
    ) -> AsyncIterator[NetworkServiceResponse]:
        """The matches; a watch stays open."""
        del call
        wanted = query.network_service
        if not query.watch:
            for service in tuple(self._services.values()):
                if service_matches(wanted, service):
                    yield NetworkServiceResponse(service)
            return
        current = tuple(self._services.items())
        async for service, deleted in self._service_hub.watch(current, lambda s: service_matches(wanted, s)):
            yield NetworkServiceResponse(service, deleted)

    async def register_endpoint(
        self, endpoint: NetworkServiceEndpoint, arrival: Arrival
    ) -> tuple[NetworkServiceEndpoint, RegistryPath]:
        """Store it until it expires; the answer says when."""
        async with self._queues.turn(endpoint.name):
            now = self._clock()
            own, caller = arrival.expiries()
            expiration = registration_expiry(own, caller, now, self._lifetime, endpoint.expiration_time)
            known = self._endpoints.get(endpoint.name)
            first = known.initial_registration_time if known else endpoint.initial_registration_time
            endpoint = replace(
                endpoint,
                expiration_time=expiration,
                initial_registration_time=first if first is not None else round(now * _SECOND_NS),
            )
            await self._keep(endpoint, known)
            self._endpoints[endpoint.name] = endpoint
            self._timers.set(endpoint.name, unregister_time(expiration, now, arrival.call.remaining()))
            self._endpoint_hub.publish(endpoint.name, endpoint)
            return endpoint, arrival.path

    async def unregister_endpoint(self, endpoint: NetworkServiceEndpoint, arrival: Arrival) -> RegistryPath:
        """Remove it."""
        async with self._queues.turn(endpoint.name):
            if endpoint.name in self._endpoints:
                await self._store.remove_endpoint(endpoint.name)
                self._drop(endpoint.name)
            return arrival.path

    async def find_endpoints(self, query: EndpointQuery, call: Call) -> AsyncIterator[EndpointResponse]:
        """The matches; a watch stays open."""
        del call
        wanted = query.network_service_endpoint
        if not query.watch:
            for endpoint in tuple(self._endpoints.values()):
                if endpoint_matches(wanted, endpoint):
                    yield EndpointResponse(endpoint)
            return
        current = tuple(self._endpoints.items())
        async for endpoint, deleted in self._endpoint_hub.watch(
            current, lambda e: endpoint_matches(wanted, e)
        ):
            yield EndpointResponse(endpoint, deleted)

    async def close(self) -> None:
        """End the watches and release the store; entries stay in it."""
        self._timers.stop()
        self._service_hub.end(None)
        self._endpoint_hub.end(None)
        await self._store.close()

    async def _expire(self, name: str) -> None:
        async with self._queues.turn(name):
            if self._timers.is_set(name) or name not in self._endpoints:
                return  # registered again, or removed, while we waited for our turn
            await self._forget_stored(name)
            self._drop(name)
            self._endpoint_policies.unregistered(name)
            _LOG.info("endpoint.expired", endpoint=name)

    async def _keep(self, endpoint: NetworkServiceEndpoint, known: NetworkServiceEndpoint | None) -> None:
        """On a full disk a registration that is only prolonged lives on, with its former end in the store."""
        try:
            await self._store.save_endpoint(endpoint)
        except NsmError as error:
            if (
                known is None
                or error.code is not Code.RESOURCE_EXHAUSTED
                or not _is_prolonged(known, endpoint)
            ):
                raise
            _LOG.warning("store.not_prolonged", endpoint=endpoint.name, reason=str(error))

    async def _forget_stored(self, name: str) -> None:
        """An expired row that stays is removed at the next start, so a full disk does not keep the entry alive."""
        try:
            await self._store.remove_endpoint(name)
        except NsmError as error:
            _LOG.warning("store.remove_failed", endpoint=name, error=str(error))

    def _drop(self, name: str) -> None:
        self._timers.cancel(name)
        known = self._endpoints.pop(name)
        self._endpoint_hub.publish(name, known, deleted=True)


def _is_prolonged(known: NetworkServiceEndpoint, new: NetworkServiceEndpoint) -> bool:
    """Whether nothing but the end of the registration is another."""
    return replace(known, expiration_time=new.expiration_time) == new
