"""``ipam`` messages ↔ ``nsm.model.ipam`` (reference §1.6)."""

from typing import Final, cast

from nsm.model.ipam import PrefixRequest, PrefixResponse, PrefixType
from nsm.wire.codec.base import Codec, open_enum, put_unknown, unknown_of
from nsm.wire.generated import ipam_pb2 as pb

PREFIX_TYPES: Final = {int(member): member for member in PrefixType}


def _read_request(message: pb.PrefixRequest) -> PrefixRequest:
    return PrefixRequest(
        type=open_enum(PREFIX_TYPES, message.type),
        prefix=message.prefix,
        exclude_prefixes=tuple(message.exclude_prefixes),
        unknown=unknown_of(message),
    )


def _fill_request(message: pb.PrefixRequest, model: PrefixRequest) -> None:
    message.type = cast("pb.Type", model.type)
    message.prefix = model.prefix
    message.exclude_prefixes.extend(model.exclude_prefixes)
    put_unknown(message, model.unknown)


def _read_response(message: pb.PrefixResponse) -> PrefixResponse:
    return PrefixResponse(message.prefix, tuple(message.exclude_prefixes), unknown_of(message))


def _fill_response(message: pb.PrefixResponse, model: PrefixResponse) -> None:
    message.prefix = model.prefix
    message.exclude_prefixes.extend(model.exclude_prefixes)
    put_unknown(message, model.unknown)


PREFIX_REQUEST: Final = Codec(pb.PrefixRequest, _read_request, _fill_request)
PREFIX_RESPONSE: Final = Codec(pb.PrefixResponse, _read_response, _fill_response)
