"""The endpoints of this node: how we dial them, while the registry knows them by our own URL (reference §3.10).

A socket that was handed to us as a descriptor is dialled as ``unix:///proc/self/fd/N``; we own the descriptor.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from controlplane.registry.watch import Hub
from nsm.model.endpoint import EndpointResponse, NetworkServiceEndpoint
from nsm.service.sockets import fd_url


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """``endpoint`` as the registry answered, but with the URL we dial; ``fd`` = its socket, ``None`` = not a socket."""

    endpoint: NetworkServiceEndpoint
    fd: int | None

    @property
    def url(self) -> str:
        """What we dial."""
        return self.endpoint.url


class LocalEndpoints:
    """By name."""

    def __init__(self, public_url: str, dropped: Callable[[str], Awaitable[None]]) -> None:
        """``dropped`` is told a URL before its descriptor is closed: its number will name another socket."""
        self.public_url = public_url
        self._dropped = dropped
        self._endpoints: dict[str, LocalEndpoint] = {}
        self._hub: Hub[LocalEndpoint] = Hub()

    def get(self, name: str) -> LocalEndpoint | None:
        """The endpoint of that name, if it is registered here."""
        return self._endpoints.get(name)

    def serving(self, service: str) -> list[NetworkServiceEndpoint]:
        """Those that serve ``service``, in order of registration, with the URLs we dial."""
        return [
            local.endpoint
            for local in self._endpoints.values()
            if service in local.endpoint.network_service_names
        ]

    async def put(self, endpoint: NetworkServiceEndpoint, fd: int | None) -> None:
        """Register or renew; ``endpoint.url`` counts where there is no descriptor. Takes the descriptor over.

        A renewal with a descriptor of the same socket keeps the URL, so that connections to it stay.
        """
        known = self._endpoints.get(endpoint.name)
        if known is not None and fd is not None and known.fd is not None and _same(fd, known.fd):
            os.close(fd)
            self._set(LocalEndpoint(replace(endpoint, url=known.url), known.fd))
            return
        url = fd_url(fd) if fd is not None else endpoint.url
        self._set(LocalEndpoint(replace(endpoint, url=url), fd))
        if known is not None and known.url != url:
            await self._release(known)

    async def arrivals(self, name: str) -> AsyncGenerator[str, None]:
        """The URL of the endpoint of that name: now, if it is registered, and at each registration from now on."""
        current = tuple(self._endpoints.items())
        async with aclosing(self._hub.watch(current, lambda local: local.endpoint.name == name)) as changes:
            async for local, _ in changes:
                yield local.url

    async def remove(self, name: str) -> None:
        """Forget it; an unknown name is no error."""
        if (known := self._endpoints.pop(name, None)) is not None:
            await self._release(known)

    async def close(self) -> None:
        """Forget all."""
        for name in tuple(self._endpoints):
            await self.remove(name)

    def shown(self, response: EndpointResponse) -> EndpointResponse | None:
        """What a Find of the registry means here: our own endpoints by the URL we dial, ``None`` = do not show.

        Hidden is what the registry still gives our URL to although nobody registered it with us.
        """
        endpoint = response.network_service_endpoint
        if endpoint.url != self.public_url:
            return response
        local = self._endpoints.get(endpoint.name)
        if local is None:
            return response if response.deleted else None
        expires = (endpoint.expiration_time, local.endpoint.expiration_time)
        latest = None if None in expires else max(time for time in expires if time is not None)
        shown = replace(endpoint, url=local.url, expiration_time=latest)
        return replace(response, network_service_endpoint=shown)

    def _set(self, local: LocalEndpoint) -> None:
        self._endpoints[local.endpoint.name] = local
        self._hub.publish(local.endpoint.name, local)

    async def _release(self, local: LocalEndpoint) -> None:
        try:
            await self._dropped(local.url)
        finally:
            if local.fd is not None:
                os.close(local.fd)


def _same(one: int, other: int) -> bool:
    """Whether two descriptors are of the same file; true only of files that still exist, so numbers are not reused."""
    return os.path.sameopenfile(one, other)
