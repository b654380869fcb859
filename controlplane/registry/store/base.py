"""What every store of the registry does; ``tests/unit/controlplane/registry`` has the cases all of them pass."""

from dataclasses import dataclass
from typing import Protocol

from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint


@dataclass(frozen=True, slots=True)
class Contents:
    """All that is stored. The owner of a name is the first of its ``path_ids``."""

    services: tuple[NetworkService, ...] = ()
    endpoints: tuple[NetworkServiceEndpoint, ...] = ()


class Store(Protocol):
    """Entries by name; a write is safe against the death of the process when it returns.

    Every method may raise NsmError: RESOURCE_EXHAUSTED when the disk is full, else INTERNAL. Nothing has changed then.
    """

    async def load(self) -> Contents:
        """Everything stored, sorted by name."""

    async def save_service(self, service: NetworkService) -> None:
        """Write or replace."""

    async def remove_service(self, name: str) -> None:
        """Remove; an unknown name is no error."""

    async def save_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        """Write or replace."""

    async def remove_endpoint(self, name: str) -> None:
        """Remove; an unknown name is no error."""

    async def close(self) -> None:
        """Release what the store holds open."""
