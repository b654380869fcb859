"""Path tokens: ES256 JWTs with which each hop vouches for the one before it (reference §3.2).

Header ``{"alg":"ES256","typ":"JWT"}``; claims ``sub`` (own SPIFFE ID), ``aud`` (a list with exactly the peer's
SPIFFE ID; absent without a peer) and ``exp`` (whole Unix seconds). Upstream signs one per RPC; we hand the same
one out again during the first tenth of its life. That is short enough that every refresh still carries a
new one: a refresh happens after at least a fifth of what is left (``nsm.session.timing.refresh_delay``).
"""

import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, cast

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nsm.identity.svid import is_p256
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Claims, Identity, Svid, Token
from nsm.session.path import MAX_TOKEN_BYTES

ALGORITHM: Final = "ES256"
REUSE_SHARE: Final = 0.1
"""The share of a token's life during which it is handed out again; then its refresh window is open."""

_SECOND_NS: Final = 1_000_000_000
_CACHED_TOKENS: Final = 4096
_CACHED_LEAVES: Final = 512
_CACHED_AUDIENCES: Final = 1024
_CACHED_SVIDS: Final = 4


@dataclass(frozen=True, slots=True)
class _Signed:
    """A token of ours and the span of the clock (Unix seconds) in which it is handed out again."""

    text: str = field(repr=False)
    exp: int
    reuse_from: float
    reuse_until: float


@dataclass(frozen=True, slots=True)
class _Signer:
    """An SVID that can sign, and the tokens it has signed by audience."""

    svid: Svid
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    signed: dict[str | None, _Signed] = field(default_factory=dict, repr=False)


class PathTokens:
    """Implements ``nsm.model.identity.TokenSource``: the newest SVID's key, or that of a connection (trap 5)."""

    def __init__(
        self, identity: Identity, *, max_lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        """``max_lifetime`` in seconds; ``clock`` gives Unix seconds."""
        self._identity = identity
        self._max_lifetime = max_lifetime
        self._clock = clock
        self._signers: OrderedDict[bytes, _Signer] = OrderedDict()

    @property
    def spiffe_id(self) -> str:
        """Our own SPIFFE ID, the subject of every token."""
        return self._identity.current.svid.spiffe_id

    def token(
        self, audience: str | None, peer_not_after: float | None = None, svid: Svid | None = None
    ) -> Token:
        """A token for ``audience`` (a SPIFFE ID; ``None`` = no TLS peer), by the newest SVID unless ``svid`` is given.

        Its expiry is that of the claim, further limited by ``peer_not_after`` (Unix seconds, the end of the
        peer's certificate); the claim itself is not lowered by that.

        Raises:
            NsmError: UNAVAILABLE when the SVID has expired, FAILED_PRECONDITION when its key cannot sign.
        """
        signed = self._valid(self._signer(svid or self._identity.current.svid), audience)
        expires = signed.exp * _SECOND_NS
        if peer_not_after is not None and math.isfinite(peer_not_after):
            expires = min(expires, int(peer_not_after * _SECOND_NS))
        return Token(signed.text, expires)

    def _valid(self, signer: _Signer, audience: str | None) -> _Signed:
        """The token in use for ``audience``; signed anew in its refresh window."""
        now = self._clock()
        known = signer.signed.get(audience)
        if known is not None and known.reuse_from <= now < known.reuse_until:
            return known
        if len(signer.signed) >= _CACHED_AUDIENCES:
            signer.signed.clear()
        signed = self._sign(signer, audience, now)
        signer.signed[audience] = signed
        return signed

    def _signer(self, svid: Svid) -> _Signer:
        """Made once for each SVID; connections from before the last rotations are few."""
        leaf = svid.chain[0]
        known = self._signers.get(leaf)
        if known is not None:
            return known
        key = serialization.load_der_private_key(svid.key, password=None)
        if not is_p256(key):
            raise NsmError(
                Code.FAILED_PRECONDITION,
                "the SVID's key must be EC P-256: path tokens are ES256",
                field="svid",
            )
        signer = _Signer(svid, cast("ec.EllipticCurvePrivateKey", key))
        self._signers[leaf] = signer
        if len(self._signers) > _CACHED_SVIDS:
            self._signers.popitem(last=False)
        return signer

    def _sign(self, signer: _Signer, audience: str | None, now: float) -> _Signed:
        svid = signer.svid
        exp = int(min(now + self._max_lifetime, svid.not_after))
        if exp <= now:
            raise NsmError(
                Code.UNAVAILABLE,
                f"cannot sign for {svid.spiffe_id}: its SVID expired or is about to;"
                " is the Workload API reachable?",
            )
        claims: dict[str, object] = {"sub": svid.spiffe_id, "exp": exp}
        if audience is not None:
            claims["aud"] = [audience]
        text = jwt.encode(claims, signer.key, algorithm=ALGORITHM)
        return _Signed(text, exp, now, now + (exp - now) * REUSE_SHARE)


class PathTokenVerifier:
    """Implements ``nsm.model.identity.TokenVerifier``; both answers are pure, so they are cached."""

    def __init__(self) -> None:
        self._claims = lru_cache(_CACHED_TOKENS)(read_claims)
        self._signed_by = lru_cache(_CACHED_TOKENS)(self._verify)
        self._public_key = lru_cache(_CACHED_LEAVES)(_public_key)

    def claims(self, token: str) -> Claims | None:
        """The claims, without checking the signature; ``None`` = not a JWT, or longer than we accept."""
        return None if _is_oversized(token) else self._claims(token)

    def signed_by(self, token: str, leaf: bytes) -> bool:
        """Whether ES256 verifies under the certificate ``leaf`` (DER); what cannot be read does not."""
        return not _is_oversized(token) and self._signed_by(token, leaf)

    def _verify(self, token: str, leaf: bytes) -> bool:
        key = self._public_key(leaf)
        if key is None:
            return False
        try:
            _JWS.decode_complete(token, key=key, algorithms=[ALGORITHM])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return False
        return True


_JWS: Final = jwt.PyJWS(algorithms=[ALGORITHM])


def read_claims(token: str) -> Claims | None:
    """The claims of a JWT, signature unchecked; ``None`` if it is none.

    ``aud`` is empty unless it is a list of texts: a plain text is no audience to upstream either (trap 2).
    ``exp`` is ``None`` when missing or no number.
    """
    try:
        decoded = _JWS.decode_complete(token, options={"verify_signature": False})
        payload = json.loads(decoded["payload"])
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    if not isinstance(payload, dict):
        return None
    sub, aud = payload.get("sub"), payload.get("aud")
    audiences = tuple(aud) if isinstance(aud, list) and all(isinstance(one, str) for one in aud) else ()
    begins = [found for name in ("nbf", "iat") if (found := _seconds(payload.get(name))) is not None]
    begin = max(begins, default=None)
    return Claims(sub if isinstance(sub, str) else "", audiences, _seconds(payload.get("exp")), begin)


def _seconds(exp: object) -> int | None:
    """Whole seconds of a NumericDate (RFC 7519 §2)."""
    if isinstance(exp, bool) or not isinstance(exp, int | float) or not math.isfinite(exp):
        return None
    return math.floor(exp)


def _is_oversized(token: str) -> bool:
    return len(token) > MAX_TOKEN_BYTES


def _public_key(leaf: bytes) -> ec.EllipticCurvePublicKey | None:
    """The P-256 key of a certificate (DER); ``None`` if it cannot be read or is of another kind."""
    try:
        key = x509.load_der_x509_certificate(leaf).public_key()
    except ValueError:
        return None
    return cast("ec.EllipticCurvePublicKey", key) if is_p256(key) else None
