"""A connection of a client to a network service, as NSM's NetworkService API sees it (reference §1.2, §1.3)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from nsm.model.context import ConnectionContext, IpContext
from nsm.model.mechanism import Mechanism
from nsm.model.path import Path, PathSegment


class State(IntEnum):
    """``connection.State``."""

    UP = 0
    DOWN = 1
    REFRESH_REQUESTED = 2
    RESELECT_REQUESTED = 3


@dataclass(frozen=True, slots=True)
class Connection:
    """``connection.Connection``; ``state`` keeps an unknown number as a plain int."""

    id: str = ""
    network_service: str = ""
    mechanism: Mechanism | None = None
    context: ConnectionContext | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    network_service_endpoint_name: str = ""
    payload: str = ""
    state: State = State.UP
    unknown: bytes = field(default=b"", repr=False)

    @property
    def ctx(self) -> ConnectionContext:
        """The context, or an empty one."""
        return self.context or ConnectionContext()

    @property
    def ip(self) -> IpContext:
        """The IP context, or an empty one."""
        return self.ctx.ip

    @property
    def route(self) -> Path:
        """The path, or an empty one."""
        return self.path or Path()


@dataclass(frozen=True, slots=True)
class NetworkServiceRequest:
    """``networkservice.NetworkServiceRequest``."""

    connection: Connection
    mechanism_preferences: tuple[Mechanism, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


class EventType(IntEnum):
    """``connection.ConnectionEventType``."""

    INITIAL_STATE_TRANSFER = 0
    UPDATE = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """``connection.ConnectionEvent``: ``connections`` by the sender's own segment id."""

    type: EventType
    connections: Mapping[str, Connection] = field(default_factory=dict)
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class MonitorScopeSelector:
    """``connection.MonitorScopeSelector``: empty = every connection."""

    path_segments: tuple[PathSegment, ...] = ()
    network_services: tuple[str, ...] = ()
    unknown: bytes = field(default=b"", repr=False)
