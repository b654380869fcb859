"""Who is at the other end of a connection, as its verified certificate says."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """``leaf`` is the peer's certificate (DER), ``not_after`` its end in Unix seconds."""

    spiffe_id: str
    leaf: bytes = field(repr=False)
    not_after: float
    address: str
    passes_fds: bool
