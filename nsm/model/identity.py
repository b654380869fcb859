"""Who a process is: its X.509-SVID and the CAs of each trust domain (SPIFFE X.509-SVID)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Svid:
    """An X.509-SVID: DER certificates leaf first, PKCS#8 DER key, ``not_after`` in Unix seconds."""

    spiffe_id: str
    chain: tuple[bytes, ...] = field(repr=False)
    key: bytes = field(repr=False)
    not_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Material:
    """One consistent snapshot: our SVID and the CA certificates (DER) by trust domain name."""

    svid: Svid
    bundles: Mapping[str, tuple[bytes, ...]] = field(repr=False)


class Identity(Protocol):
    """What the transport needs of an identity source."""

    @property
    def current(self) -> Material:
        """The newest material."""

    def subscribe(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        """Call ``callback`` on the event loop at each change; the result ends the subscription."""

    def verify_anchor(self, chain: Sequence[bytes]) -> str:
        """The SPIFFE ID of a chain that OpenSSL verified (DER, leaf first, anchor last).

        Raises NsmError UNAUTHENTICATED unless the leaf is a valid X.509-SVID whose anchor is
        in the bundle of its own trust domain.
        """


@dataclass(frozen=True, slots=True)
class Token:
    """A signed path token and its expiry (Unix nanoseconds)."""

    text: str = field(repr=False)
    expires: int = 0


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a path token: ``exp`` in Unix seconds, ``None`` = missing.

    ``begin``: the later of ``nbf`` and ``iat`` (RFC 7519 §4.1), ``None`` = good from ever.
    """

    sub: str
    aud: tuple[str, ...]
    exp: int | None
    begin: int | None = None


class TokenSource(Protocol):
    """Signs this process's own path tokens."""

    @property
    def spiffe_id(self) -> str:
        """The subject of every token."""

    def token(
        self, audience: str | None, peer_not_after: float | None = None, svid: Svid | None = None
    ) -> Token:
        """A token for ``audience``; the same one is handed out again until its refresh window opens.

        ``svid``: the one ``audience`` knows us by, if that is not the newest (trap 5).
        """


class TokenVerifier(Protocol):
    """Reads and verifies tokens of other hops."""

    def claims(self, token: str) -> Claims | None:
        """The claims, without checking the signature; ``None`` = not a JWT."""

    def signed_by(self, token: str, leaf: bytes) -> bool:
        """Whether ES256 verifies under the certificate ``leaf`` (DER)."""
