"""One RPC method as data: its path and how its messages become model objects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(frozen=True, slots=True)
class Method(Generic[Req, Res]):
    """``/service/name`` with its codecs; a decoder raises NsmError INVALID_ARGUMENT on malformed bytes."""

    service: str
    name: str
    encode_request: Callable[[Req], bytes]
    decode_request: Callable[[bytes], Req]
    encode_response: Callable[[Res], bytes]
    decode_response: Callable[[bytes], Res]
    client_streaming: bool = False
    server_streaming: bool = False

    @property
    def path(self) -> str:
        """The HTTP/2 path, ``/package.Service/Method``."""
        return f"/{self.service}/{self.name}"
