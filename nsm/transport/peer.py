"""Who is at the other end of a connection, as TLS proved it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified peer: ``leaf`` is its certificate (DER), ``not_after`` its end in Unix seconds.

    ``address`` is for people and logs. ``passes_fds`` is false over TCP: no descriptors there.
    """

    spiffe_id: str
    leaf: bytes = field(repr=False)
    not_after: float
    address: str
    passes_fds: bool
