"""TLS over memory BIOs with SPIFFE verification: bytes in, bytes out, no sockets.

asyncio's own TLS cannot carry ancillary data, and grpcio's client accepts no certificate with a URI name only
(reference §4.6, grpc-spiffe §2).
"""

import base64
import os
import ssl
from dataclasses import dataclass
from typing import Any, Final

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Identity, Material, Svid

ALPN: Final = "h2"
_PLAIN_SIZE: Final = 65536
_ENCODING_DER: Final = 2


@dataclass(frozen=True, slots=True)
class Verified:
    """The peer of a handshake that succeeded."""

    spiffe_id: str
    leaf: bytes
    not_after: float


class Contexts:
    """The SSL contexts of the newest material: connections made before a rotation keep theirs."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._material: Material | None = None
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None

    def server(self) -> "Tls":
        """The answering half of a new connection."""
        self._refresh()
        if self._server is None:
            self._server = _context(ssl.PROTOCOL_TLS_SERVER, self._identity.current)
        return Tls(self._server, self._identity, is_server=True)

    def client(self) -> "Tls":
        """The asking half of a new connection."""
        self._refresh()
        if self._client is None:
            self._client = _context(ssl.PROTOCOL_TLS_CLIENT, self._identity.current)
        return Tls(self._client, self._identity, is_server=False)

    def _refresh(self) -> None:
        material = self._identity.current
        if material is not self._material:
            self._material, self._server, self._client = material, None, None


class Tls:
    """One connection's TLS state; ``svid`` is what it was made with."""

    def __init__(self, context: ssl.SSLContext, identity: Identity, *, is_server: bool) -> None:
        self.svid: Final = identity.current.svid
        self._identity = identity
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)

    def shake(self, data: bytes) -> bool:
        """Feed bytes of the handshake; whether it is complete. ``pending()`` must be sent either way.

        Raises:
            ssl.SSLError: it failed; an alert may be pending.
        """
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def verified(self) -> Verified:
        """Who the peer is, once the handshake is complete.

        Raises:
            NsmError: UNAUTHENTICATED: no ALPN h2, or no X.509-SVID of its own trust domain (trap 60).
        """
        if self._object.selected_alpn_protocol() != ALPN:
            raise NsmError(Code.UNAUTHENTICATED, "expected the peer to negotiate ALPN h2")
        chain = verified_chain(self._object)
        spiffe_id = self._identity.verify_anchor(chain)
        facts: Any = self._object.getpeercert()
        return Verified(spiffe_id, chain[0], float(ssl.cert_time_to_seconds(facts["notAfter"])))

    def encrypt(self, data: bytes) -> bytes:
        """The records of ``data``."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest) :]
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> tuple[list[bytes], bool]:
        """The plaintext of the records that are complete, and whether the peer has said good-bye.

        Raises:
            ssl.SSLError: broken records or an alert.
        """
        self._incoming.write(data)
        plain: list[bytes] = []
        try:
            while chunk := self._object.read(_PLAIN_SIZE):
                plain.append(chunk)
                if not self._incoming.pending and not self._object.pending():
                    return plain, False  # asking once more would cost an exception
        except ssl.SSLWantReadError:
            return plain, False
        except ssl.SSLZeroReturnError:
            return plain, True
        return plain, True

    def pending(self) -> bytes:
        """What TLS itself wants to send: handshake, alerts, key updates."""
        return self._outgoing.read()

    def farewell(self) -> bytes:
        """Our good-bye (close_notify)."""
        try:
            self._object.unwrap()
        except (ssl.SSLError, ValueError):  # the peer's own has not come yet, or never will
            return self._outgoing.read()
        return self._outgoing.read()


def verified_chain(connection: ssl.SSLObject) -> list[bytes]:
    """The chain that OpenSSL verified (DER), leaf first, anchor last; empty = nothing verified."""
    public = getattr(connection, "get_verified_chain", None)  # from Python 3.13
    if public is not None:
        return [bytes(one) for one in public()]
    inner: Any = connection._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - the only way before 3.13
    return [one.public_bytes(_ENCODING_DER) for one in inner.get_verified_chain() or ()]


def explain(error: Exception) -> str:
    """What went wrong in a handshake, in one line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
        told = " (the peer refused us)" if "alert" in reason else ""
        return f"TLS: {reason}{told}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return str(error) or type(error).__name__


def _context(side: ssl._SSLMethod, material: Material) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= (
        ssl.VERIFY_X509_PARTIAL_CHAIN
    )  # an intermediate in a bundle is an anchor, as in Go
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # every connection is verified in full
    context.set_alpn_protocols([ALPN])
    try:
        anchors = b"".join(dict.fromkeys(anchor for bundle in material.bundles.values() for anchor in bundle))
        if anchors:
            context.load_verify_locations(cadata=anchors)
        _load(context, material.svid)
    except (ssl.SSLError, ValueError) as error:
        raise NsmError(Code.UNAVAILABLE, f"our own identity cannot be used: {explain(error)}") from error
    return context


def _load(context: ssl.SSLContext, svid: Svid) -> None:
    """``load_cert_chain`` reads files only: one that exists in memory alone."""
    fd = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        pem = "".join(_pem("CERTIFICATE", one) for one in svid.chain) + _pem("PRIVATE KEY", svid.key)
        os.write(fd, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _pem(kind: str, der: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"
