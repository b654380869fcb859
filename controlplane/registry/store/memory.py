"""A store that forgets with the process: for tests, and for a registry that need not survive a restart."""

from controlplane.registry.store.base import Contents
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint


class MemoryStore:
    """Two dicts."""

    def __init__(self) -> None:
        self._services: dict[str, NetworkService] = {}
        self._endpoints: dict[str, NetworkServiceEndpoint] = {}

    async def load(self) -> Contents:
        """Everything stored, sorted by name."""
        return Contents(
            tuple(self._services[name] for name in sorted(self._services)),
            tuple(self._endpoints[name] for name in sorted(self._endpoints)),
        )

    async def save_service(self, service: NetworkService) -> None:
        """Write or replace."""
        self._services[service.name] = service

    async def remove_service(self, name: str) -> None:
        """Remove; an unknown name is no error."""
        self._services.pop(name, None)

    async def save_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        """Write or replace."""
        self._endpoints[endpoint.name] = endpoint

    async def remove_endpoint(self, name: str) -> None:
        """Remove; an unknown name is no error."""
        self._endpoints.pop(name, None)

    async def close(self) -> None:
        """Nothing is held."""
