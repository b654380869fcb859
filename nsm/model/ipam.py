"""What the endpoints of one vL3 network say to the owner of its address space (reference §1.6)."""

from dataclasses import dataclass, field
from enum import IntEnum


class PrefixType(IntEnum):
    """``ipam.Type``."""

    UNDEFINED = 0
    ALLOCATE = 1
    DELETE = 2


@dataclass(frozen=True, slots=True)
class PrefixRequest:
    """``ipam.PrefixRequest``: take ``prefix`` (empty = any) or give it back, as ``address/length``."""

    type: PrefixType = PrefixType.UNDEFINED
    prefix: str = ""
    exclude_prefixes: tuple[str, ...] = ()
    unknown: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PrefixResponse:
    """``ipam.PrefixResponse``: the prefix taken and the request's exclude list again."""

    prefix: str = ""
    exclude_prefixes: tuple[str, ...] = ()
    unknown: bytes = field(default=b"", repr=False)
