"""``connection`` and ``networkservice`` messages ↔ ``nsm.model`` (reference §1.2, §1.3)."""

from typing import Final, cast

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
    State,
)
from nsm.model.mechanism import Mechanism
from nsm.model.path import Path, PathSegment
from nsm.wire.codec.base import (
    Codec,
    open_enum,
    put_texts,
    put_unix_ns,
    put_unknown,
    remembered,
    texts,
    unix_ns,
    unknown_of,
)
from nsm.wire.codec.context import fill_context, read_context
from nsm.wire.generated import connection_pb2 as pb
from nsm.wire.generated import connectioncontext_pb2, networkservice_pb2

STATES: Final = {int(member): member for member in State}
EVENT_TYPES: Final = {int(member): member for member in EventType}
EXPIRES: Final = "connection.PathSegment.expires"


def _read_mechanism(message: pb.Mechanism) -> Mechanism:
    return Mechanism(message.cls, message.type, texts(message.parameters), unknown_of(message))


def _fill_mechanism(message: pb.Mechanism, model: Mechanism) -> None:
    message.cls = model.cls
    message.type = model.type
    put_texts(message.parameters, model.parameters)
    put_unknown(message, model.unknown)


def _read_segment(message: pb.PathSegment) -> PathSegment:
    return PathSegment(
        name=message.name,
        id=message.id,
        token=message.token,
        expires=unix_ns(message.expires, EXPIRES) if message.HasField("expires") else None,
        metrics=texts(message.metrics),
        unknown=unknown_of(message),
    )


def _fill_segment(message: pb.PathSegment, model: PathSegment) -> None:
    message.name = model.name
    message.id = model.id
    message.token = model.token
    if model.expires is not None:
        put_unix_ns(message.expires, model.expires, EXPIRES)
    put_texts(message.metrics, model.metrics)
    put_unknown(message, model.unknown)


_mechanism: Final = remembered(pb.Mechanism, _read_mechanism)
_segment: Final = remembered(pb.PathSegment, _read_segment)
_context: Final = remembered(connectioncontext_pb2.ConnectionContext, read_context)


def _read_path(message: pb.Path) -> Path:
    return Path(message.index, tuple(map(_segment, message.path_segments)), unknown_of(message))


def _fill_path(message: pb.Path, model: Path) -> None:
    message.index = model.index
    for segment in model.segments:
        _fill_segment(message.path_segments.add(), segment)
    put_unknown(message, model.unknown)


def _read_connection(message: pb.Connection) -> Connection:
    return Connection(
        id=message.id,
        network_service=message.network_service,
        mechanism=_mechanism(message.mechanism) if message.HasField("mechanism") else None,
        context=_context(message.context) if message.HasField("context") else None,
        labels=texts(message.labels),
        path=_read_path(message.path) if message.HasField("path") else None,
        network_service_endpoint_name=message.network_service_endpoint_name,
        payload=message.payload,
        state=open_enum(STATES, message.state),
        unknown=unknown_of(message),
    )


def _fill_connection(message: pb.Connection, model: Connection) -> None:
    message.id = model.id
    message.network_service = model.network_service
    if model.mechanism is not None:
        message.mechanism.SetInParent()
        _fill_mechanism(message.mechanism, model.mechanism)
    if model.context is not None:
        message.context.SetInParent()
        fill_context(message.context, model.context)
    put_texts(message.labels, model.labels)
    if model.path is not None:
        message.path.SetInParent()
        _fill_path(message.path, model.path)
    message.network_service_endpoint_name = model.network_service_endpoint_name
    message.payload = model.payload
    message.state = cast("pb.State", model.state)
    put_unknown(message, model.unknown)


def _read_request(message: networkservice_pb2.NetworkServiceRequest) -> NetworkServiceRequest:
    return NetworkServiceRequest(
        connection=_read_connection(message.connection),  # unset reads as an empty connection
        mechanism_preferences=tuple(map(_mechanism, message.mechanism_preferences)),
        unknown=unknown_of(message),
    )


def _fill_request(message: networkservice_pb2.NetworkServiceRequest, model: NetworkServiceRequest) -> None:
    message.connection.SetInParent()
    _fill_connection(message.connection, model.connection)
    for mechanism in model.mechanism_preferences:
        _fill_mechanism(message.mechanism_preferences.add(), mechanism)
    put_unknown(message, model.unknown)


def _read_event(message: pb.ConnectionEvent) -> ConnectionEvent:
    return ConnectionEvent(
        type=open_enum(EVENT_TYPES, message.type),
        connections={key: _read_connection(value) for key, value in message.connections.items()},
        unknown=unknown_of(message),
    )


def _fill_event(message: pb.ConnectionEvent, model: ConnectionEvent) -> None:
    message.type = cast("pb.ConnectionEventType", model.type)
    for key, connection in model.connections.items():
        _fill_connection(message.connections[key], connection)  # asking for a key makes the entry
    put_unknown(message, model.unknown)


def _read_selector(message: pb.MonitorScopeSelector) -> MonitorScopeSelector:
    return MonitorScopeSelector(
        path_segments=tuple(map(_read_segment, message.path_segments)),
        network_services=tuple(message.network_services),
        unknown=unknown_of(message),
    )


def _fill_selector(message: pb.MonitorScopeSelector, model: MonitorScopeSelector) -> None:
    for segment in model.path_segments:
        _fill_segment(message.path_segments.add(), segment)
    message.network_services.extend(model.network_services)
    put_unknown(message, model.unknown)


CONNECTION: Final = Codec(pb.Connection, _read_connection, _fill_connection)
CONNECTION_EVENT: Final = Codec(pb.ConnectionEvent, _read_event, _fill_event)
MONITOR_SCOPE_SELECTOR: Final = Codec(pb.MonitorScopeSelector, _read_selector, _fill_selector)
NETWORK_SERVICE_REQUEST: Final = Codec(networkservice_pb2.NetworkServiceRequest, _read_request, _fill_request)
