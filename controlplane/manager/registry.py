"""The registry as workloads and forwarders of this node see it (reference §3.10, §3.13).

Register goes on to the registry under our own URL, Find comes from the mirror, and the endpoints of this node are
shown by the URL to dial: to callers on a unix socket as the descriptor of the endpoint's own socket.
"""

import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Final

import structlog

from controlplane.manager.labels import NodeLabels
from controlplane.manager.local import LocalEndpoints
from controlplane.manager.mirror import AWAY, Mirror
from controlplane.registry.expiry import ExpiryTimers
from controlplane.registry.queues import NameQueues
from controlplane.registry.server import Arrival
from nsm.model.endpoint import (
    EndpointQuery,
    EndpointResponse,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.model.errors import Code, NsmError, invalid
from nsm.policy.rules import RegistryPolicies
from nsm.service.registry import INODE, RegistryClient, open_socket
from nsm.service.sockets import UNIX
from nsm.session.registry_path import RegistryPath
from nsm.session.timing import registration_expiry, unregister_time
from nsm.transport.call import Call
from nsm.wire import methods

LIFETIME: Final = 60.0
"""Longest registration in seconds (reference §3.13)."""

_URL: Final = "network_service_endpoint.url"
_LOG: Final = structlog.get_logger()


class NodeRegistry:
    """The backend of a manager's registry servers."""

    def __init__(
        self,
        registry: RegistryClient,
        mirror: Mirror,
        local: LocalEndpoints,
        labels: NodeLabels,
        *,
        endpoints: RegistryPolicies,
        lifetime: float = LIFETIME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``endpoints``: told when an endpoint of this node expires, so that its name is free."""
        self._registry = registry
        self._mirror = mirror
        self._local = local
        self._labels = labels
        self._policies = endpoints
        self._lifetime = lifetime
        self._clock = clock
        self._queues = NameQueues()
        self._timers = ExpiryTimers(self._expire, clock)

    async def register_service(
        self, service: NetworkService, arrival: Arrival
    ) -> tuple[NetworkService, RegistryPath]:
        """Passed on."""
        answer, path = await self._registry.pass_on(methods.NS_REGISTER, service, arrival.path)
        self._mirror.put_service(answer)
        return answer, path

    async def unregister_service(self, service: NetworkService, arrival: Arrival) -> RegistryPath:
        """Passed on."""
        return (await self._registry.pass_on(methods.NS_UNREGISTER, service, arrival.path))[1]

    async def find_services(
        self, query: NetworkServiceQuery, call: Call
    ) -> AsyncIterator[NetworkServiceResponse]:
        """From the mirror."""
        del call
        if not query.watch:
            for service in await self._mirror.find_services(query.network_service):
                yield NetworkServiceResponse(service)
            return
        async for service, deleted in self._mirror.watch_services(query.network_service):
            yield NetworkServiceResponse(service, deleted)

    async def register_endpoint(
        self, endpoint: NetworkServiceEndpoint, arrival: Arrival
    ) -> tuple[NetworkServiceEndpoint, RegistryPath]:
        """Registered under our URL and kept here under its own.

        While the registry is away a refresh fails, as it must, but the endpoint stays known on this node: its
        caller was authorised and is alive.
        """
        async with self._queues.turn(endpoint.name):
            now = self._clock()
            own, caller = arrival.expiries()
            expiration = registration_expiry(own, caller, now, self._lifetime, endpoint.expiration_time)
            wanted = replace(self._labels.on_endpoint(endpoint), expiration_time=expiration)
            fd = await _receive_socket(endpoint.url, arrival.call)
            remaining = arrival.call.remaining()
            try:
                sent = replace(wanted, url=self._local.public_url)
                answer, path = await self._registry.pass_on(methods.NSE_REGISTER, sent, arrival.path)
            except NsmError as error:
                if error.code in AWAY and self._local.get(endpoint.name) is not None:
                    await self._keep(wanted, fd, now, remaining)
                elif fd is not None:
                    os.close(fd)
                raise
            except BaseException:
                if fd is not None:
                    os.close(fd)
                raise
            await self._keep(replace(answer, url=endpoint.url), fd, now, remaining)
            self._mirror.put_endpoint(answer)
            return replace(answer, url=endpoint.url), path

    async def unregister_endpoint(self, endpoint: NetworkServiceEndpoint, arrival: Arrival) -> RegistryPath:
        """Forgotten here whatever the registry says; there the entry expires if it cannot be reached."""
        async with self._queues.turn(endpoint.name):
            self._timers.cancel(endpoint.name)
            await self._local.remove(endpoint.name)
            sent = replace(endpoint, url=self._local.public_url)
            return (await self._registry.pass_on(methods.NSE_UNREGISTER, sent, arrival.path))[1]

    async def find_endpoints(self, query: EndpointQuery, call: Call) -> AsyncIterator[EndpointResponse]:
        """From the mirror, endpoints of this node by the URL to dial."""
        wanted = query.network_service_endpoint
        if not query.watch:
            for endpoint in await self._mirror.find_endpoints(wanted):
                if (shown := self._shown(EndpointResponse(endpoint), call)) is not None:
                    yield shown
            return
        async for endpoint, deleted in self._mirror.watch_endpoints(wanted):
            if (shown := self._shown(EndpointResponse(endpoint, deleted), call)) is not None:
                yield shown

    async def close(self) -> None:
        """Forget the endpoints of this node; the registry expires them."""
        self._timers.stop()
        await self._local.close()

    def _shown(self, response: EndpointResponse, call: Call) -> EndpointResponse | None:
        shown = self._local.shown(response)
        if shown is None or not shown.network_service_endpoint.url.startswith(UNIX):
            return shown
        endpoint = shown.network_service_endpoint
        local = self._local.get(endpoint.name)
        if local is None or local.fd is None or response.deleted:
            return shown
        if not call.peer.passes_fds:  # over TCP a socket of ours cannot be dialled, but we can
            return replace(shown, network_service_endpoint=replace(endpoint, url=self._local.public_url))
        return replace(shown, network_service_endpoint=replace(endpoint, url=call.send_fd(local.fd)))

    async def _keep(
        self, endpoint: NetworkServiceEndpoint, fd: int | None, now: float, remaining: float | None
    ) -> None:
        await self._local.put(endpoint, fd)
        if endpoint.expiration_time is not None:
            self._timers.set(endpoint.name, unregister_time(endpoint.expiration_time, now, remaining))

    async def _expire(self, name: str) -> None:
        """The registry drops the entry at the same time by itself; only the owner could unregister it there."""
        async with self._queues.turn(name):
            if self._timers.is_set(name) or self._local.get(name) is None:
                return  # registered again, or removed, while we waited for our turn
            await self._local.remove(name)
            self._policies.unregistered(name)
            _LOG.info("endpoint.expired", endpoint=name)


async def _receive_socket(url: str, call: Call) -> int | None:
    """The socket behind ``inode://`` or ``unix://``, ``None`` for ``tcp://``; the caller owns the descriptor."""
    if url.startswith(INODE):
        return await call.receive_fd(url)
    if url.startswith(UNIX):
        if not call.peer.passes_fds:
            raise NsmError(
                Code.FAILED_PRECONDITION,
                f"expected a tcp:// URL from a caller on TCP, got {url!r}: its socket cannot be reached from here",
                field=_URL,
            )
        return open_socket(url)
    if not url.startswith("tcp://"):
        raise invalid(_URL, "inode://, unix:// or tcp://", url)
    return None
