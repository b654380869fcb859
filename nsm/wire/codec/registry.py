"""``registry`` messages ↔ ``nsm.model.endpoint`` (reference §1.5).

A query or response without its service or endpoint reads as one with an empty one, and always sends it:
peers take the sub-message for given.
"""

from typing import Final

from nsm.model.endpoint import (
    Destination,
    EndpointQuery,
    EndpointResponse,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.wire.codec.base import Codec, put_unix_ns, put_unknown, texts, unix_ns, unknown_of
from nsm.wire.generated import registry_pb2 as pb

EXPIRATION_TIME: Final = "registry.NetworkServiceEndpoint.expiration_time"
INITIAL_REGISTRATION_TIME: Final = "registry.NetworkServiceEndpoint.initial_registration_time"


def _read_destination(message: pb.Destination) -> Destination:
    return Destination(texts(message.destination_selector), message.weight, unknown_of(message))


def _fill_destination(message: pb.Destination, model: Destination) -> None:
    message.destination_selector.update(model.destination_selector)
    message.weight = model.weight
    put_unknown(message, model.unknown)


def _read_match(message: pb.Match) -> Match:
    has_metadata = message.HasField("metadata")
    return Match(
        source_selector=texts(message.source_selector),
        routes=tuple(map(_read_destination, message.routes)),
        fall_through=message.fallthrough,
        metadata=texts(message.metadata.labels) if has_metadata else None,
        unknown=unknown_of(message),
        metadata_unknown=unknown_of(message.metadata) if has_metadata else b"",
    )


def _fill_match(message: pb.Match, model: Match) -> None:
    message.source_selector.update(model.source_selector)
    for destination in model.routes:
        _fill_destination(message.routes.add(), destination)
    message.fallthrough = model.fall_through
    if model.metadata is not None:
        message.metadata.SetInParent()
        message.metadata.labels.update(model.metadata)
        put_unknown(message.metadata, model.metadata_unknown)
    put_unknown(message, model.unknown)


def _read_service(message: pb.NetworkService) -> NetworkService:
    return NetworkService(
        name=message.name,
        payload=message.payload,
        matches=tuple(map(_read_match, message.matches)),
        path_ids=tuple(message.path_ids),
        unknown=unknown_of(message),
    )


def _fill_service(message: pb.NetworkService, model: NetworkService) -> None:
    message.name = model.name
    message.payload = model.payload
    for match in model.matches:
        _fill_match(message.matches.add(), match)
    message.path_ids.extend(model.path_ids)
    put_unknown(message, model.unknown)


def _read_endpoint(message: pb.NetworkServiceEndpoint) -> NetworkServiceEndpoint:
    expires = message.HasField("expiration_time")
    registered = message.HasField("initial_registration_time")
    labels = tuple(message.network_service_labels.items())
    return NetworkServiceEndpoint(
        name=message.name,
        network_service_names=tuple(message.network_service_names),
        network_service_labels={service: texts(value.labels) for service, value in labels},
        url=message.url,
        expiration_time=unix_ns(message.expiration_time, EXPIRATION_TIME) if expires else None,
        initial_registration_time=(
            unix_ns(message.initial_registration_time, INITIAL_REGISTRATION_TIME) if registered else None
        ),
        path_ids=tuple(message.path_ids),
        unknown=unknown_of(message),
        labels_unknown={service: rest for service, value in labels if (rest := unknown_of(value))},
    )


def _fill_endpoint(message: pb.NetworkServiceEndpoint, model: NetworkServiceEndpoint) -> None:
    message.name = model.name
    message.network_service_names.extend(model.network_service_names)
    for service, labels in model.network_service_labels.items():
        entry = message.network_service_labels[service]
        entry.labels.update(labels)
        put_unknown(entry, model.labels_unknown.get(service, b""))
    message.url = model.url
    if model.expiration_time is not None:
        put_unix_ns(message.expiration_time, model.expiration_time, EXPIRATION_TIME)
    if model.initial_registration_time is not None:
        put_unix_ns(
            message.initial_registration_time, model.initial_registration_time, INITIAL_REGISTRATION_TIME
        )
    message.path_ids.extend(model.path_ids)
    put_unknown(message, model.unknown)


def _read_service_query(message: pb.NetworkServiceQuery) -> NetworkServiceQuery:
    return NetworkServiceQuery(_read_service(message.network_service), message.watch, unknown_of(message))


def _fill_service_query(message: pb.NetworkServiceQuery, model: NetworkServiceQuery) -> None:
    message.network_service.SetInParent()
    _fill_service(message.network_service, model.network_service)
    message.watch = model.watch
    put_unknown(message, model.unknown)


def _read_service_response(message: pb.NetworkServiceResponse) -> NetworkServiceResponse:
    return NetworkServiceResponse(
        _read_service(message.network_service), message.deleted, unknown_of(message)
    )


def _fill_service_response(message: pb.NetworkServiceResponse, model: NetworkServiceResponse) -> None:
    message.network_service.SetInParent()
    _fill_service(message.network_service, model.network_service)
    message.deleted = model.deleted
    put_unknown(message, model.unknown)


def _read_endpoint_query(message: pb.NetworkServiceEndpointQuery) -> EndpointQuery:
    return EndpointQuery(_read_endpoint(message.network_service_endpoint), message.watch, unknown_of(message))


def _fill_endpoint_query(message: pb.NetworkServiceEndpointQuery, model: EndpointQuery) -> None:
    message.network_service_endpoint.SetInParent()
    _fill_endpoint(message.network_service_endpoint, model.network_service_endpoint)
    message.watch = model.watch
    put_unknown(message, model.unknown)


def _read_endpoint_response(message: pb.NetworkServiceEndpointResponse) -> EndpointResponse:
    return EndpointResponse(
        _read_endpoint(message.network_service_endpoint), message.deleted, unknown_of(message)
    )


def _fill_endpoint_response(message: pb.NetworkServiceEndpointResponse, model: EndpointResponse) -> None:
    message.network_service_endpoint.SetInParent()
    _fill_endpoint(message.network_service_endpoint, model.network_service_endpoint)
    message.deleted = model.deleted
    put_unknown(message, model.unknown)


NETWORK_SERVICE: Final = Codec(pb.NetworkService, _read_service, _fill_service)
NETWORK_SERVICE_ENDPOINT: Final = Codec(pb.NetworkServiceEndpoint, _read_endpoint, _fill_endpoint)
NETWORK_SERVICE_QUERY: Final = Codec(pb.NetworkServiceQuery, _read_service_query, _fill_service_query)
NETWORK_SERVICE_RESPONSE: Final = Codec(
    pb.NetworkServiceResponse, _read_service_response, _fill_service_response
)
ENDPOINT_QUERY: Final = Codec(pb.NetworkServiceEndpointQuery, _read_endpoint_query, _fill_endpoint_query)
ENDPOINT_RESPONSE: Final = Codec(
    pb.NetworkServiceEndpointResponse, _read_endpoint_response, _fill_endpoint_response
)
