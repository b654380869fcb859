"""Network services and endpoints as the registry keeps them (reference §1.5, §3.13)."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a match leads; ``weight`` is carried and, as upstream, never read."""

    destination_selector: Mapping[str, str] = field(default_factory=dict)
    weight: int = 0
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Match:
    """One routing rule of a service; ``metadata`` = labels the forwarder must have, ``None`` = not set.

    ``metadata_unknown``: what the wire's ``Metadata`` held besides its labels.
    """

    source_selector: Mapping[str, str] = field(default_factory=dict)
    routes: tuple[Destination, ...] = ()
    fall_through: bool = False
    metadata: Mapping[str, str] | None = None
    unknown: bytes = field(default=b"", repr=False)
    metadata_unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class NetworkService:
    """``registry.NetworkService``."""

    name: str = ""
    payload: str = ""
    matches: tuple[Match, ...] = ()
    path_ids: tuple[str, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class NetworkServiceEndpoint:
    """``registry.NetworkServiceEndpoint``; times are Unix nanoseconds, ``None`` = field not set.

    ``network_service_labels`` maps a service name to the endpoint's labels for it;
    ``labels_unknown`` holds, by service name, what the wire's ``NetworkServiceLabels`` held besides.
    """

    name: str = ""
    network_service_names: tuple[str, ...] = ()
    network_service_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    url: str = ""
    expiration_time: int | None = None
    initial_registration_time: int | None = None
    path_ids: tuple[str, ...] = ()
    unknown: bytes = field(default=b"", repr=False)
    labels_unknown: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def labels(self, service: str) -> Mapping[str, str]:
        """The labels this endpoint has for ``service``."""
        return self.network_service_labels.get(service, {})


@dataclass(frozen=True, slots=True)
class NetworkServiceQuery:
    """``registry.NetworkServiceQuery``."""

    network_service: NetworkService = NetworkService()
    watch: bool = False
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class NetworkServiceResponse:
    """``registry.NetworkServiceResponse``."""

    network_service: NetworkService = NetworkService()
    deleted: bool = False
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EndpointQuery:
    """``registry.NetworkServiceEndpointQuery``."""

    network_service_endpoint: NetworkServiceEndpoint = NetworkServiceEndpoint()
    watch: bool = False
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EndpointResponse:
    """``registry.NetworkServiceEndpointResponse``."""

    network_service_endpoint: NetworkServiceEndpoint = NetworkServiceEndpoint()
    deleted: bool = False
    unknown: bytes = field(default=b"", repr=False)
