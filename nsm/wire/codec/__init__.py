"""The only place where protobuf and the model meet: one ``Codec`` for each message that travels by itself.

Nothing a peer sent is lost: fields we do not know stay in each model object's ``unknown`` and enum numbers
we do not know stay plain ints. Two exceptions, by the nature of the messages: ``google.protobuf.Timestamp``
becomes an int, and protobuf itself drops unknown fields of map entries.
"""

from nsm.wire.codec.base import EMPTY, Codec
from nsm.wire.codec.connection import (
    CONNECTION,
    CONNECTION_EVENT,
    MONITOR_SCOPE_SELECTOR,
    NETWORK_SERVICE_REQUEST,
)
from nsm.wire.codec.ipam import PREFIX_REQUEST, PREFIX_RESPONSE
from nsm.wire.codec.registry import (
    ENDPOINT_QUERY,
    ENDPOINT_RESPONSE,
    NETWORK_SERVICE,
    NETWORK_SERVICE_ENDPOINT,
    NETWORK_SERVICE_QUERY,
    NETWORK_SERVICE_RESPONSE,
)

__all__ = [
    "CONNECTION",
    "CONNECTION_EVENT",
    "EMPTY",
    "ENDPOINT_QUERY",
    "ENDPOINT_RESPONSE",
    "MONITOR_SCOPE_SELECTOR",
    "NETWORK_SERVICE",
    "NETWORK_SERVICE_ENDPOINT",
    "NETWORK_SERVICE_QUERY",
    "NETWORK_SERVICE_REQUEST",
    "NETWORK_SERVICE_RESPONSE",
    "PREFIX_REQUEST",
    "PREFIX_RESPONSE",
    "Codec",
]
