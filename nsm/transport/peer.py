"""Who is at the other end of a connection, as TLS proved it."""

from dataclasses import dataclass, field

from nsm.model.identity import Svid


@dataclass(frozen=True, slots=True)
class Peer:
    """The verified peer: ``leaf`` is its certificate (DER), ``not_after`` its end in Unix seconds.

    ``address`` is for people and logs. ``passes_fds`` is false over TCP: no descriptors there. ``shown`` is the SVID
    that it knows us by on this connection: what we sign for it must be signed with that key, also after a rotation
    (trap 5).
    """

    spiffe_id: str
    leaf: bytes = field(repr=False)
    not_after: float
    address: str
    passes_fds: bool
    shown: Svid | None = field(default=None, repr=False)
