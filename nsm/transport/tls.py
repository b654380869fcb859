"""TLS contexts from an identity, and the verification of a peer against its own trust domain.

OpenSSL checks the chain against the union of all bundles; ``Identity.verify_anchor`` then binds it to the bundle of
the leaf's trust domain, without which any federated CA could sign for ours.
"""

import os
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Identity, Material
from nsm.transport.peer import Peer

ALPN: Final = "h2"


class Contexts:
    """The server and client context of the newest SVID; made anew when it changes, used by new connections."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._material: Material | None = None
        self._server: ssl.SSLContext | None = None
        self._client: ssl.SSLContext | None = None

    def pair(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        """(server, client)."""
        material = self._identity.current
        if material is not self._material or self._server is None or self._client is None:
            self._server = _context(material, server=True)
            self._client = _context(material, server=False)
            self._material = material
        return self._server, self._client


def _context(material: Material, *, server: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols([ALPN])
    context.options |= ssl.OP_NO_TICKET
    if server:
        context.num_tickets = 0  # every connection is verified in full
    roots = b"".join(root for roots in material.bundles.values() for root in roots)
    if roots:
        context.load_verify_locations(cadata=roots)
    _load(context, material)
    return context


def _load(context: ssl.SSLContext, material: Material) -> None:
    """Give the context our chain and key; the key stays in memory (Python 3.11 loads from files only)."""
    chain = "".join(ssl.DER_cert_to_PEM_cert(der) for der in material.svid.chain)
    fd = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        os.write(fd, chain.encode() + _pem(material.svid.key))
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _pem(key: bytes) -> bytes:
    text = ssl.DER_cert_to_PEM_cert(key)  # the same armour under another label
    return text.replace(" CERTIFICATE-----", " PRIVATE KEY-----").encode()


def verified(tls: ssl.SSLObject, identity: Identity, address: str, *, passes_fds: bool) -> Peer:
    """The peer of a finished handshake. Raises NsmError UNAUTHENTICATED with the reason to refuse it."""
    if tls.selected_alpn_protocol() != ALPN:
        raise NsmError(Code.UNAUTHENTICATED, "the peer did not negotiate ALPN h2")
    chain = _verified_chain(tls)
    spiffe_id = identity.verify_anchor(chain)
    certificate = tls.getpeercert() or {}
    not_after = (
        ssl.cert_time_to_seconds(str(certificate["notAfter"])) if "notAfter" in certificate else time.time()
    )
    return Peer(spiffe_id, chain[0], float(not_after), address, passes_fds)


def _verified_chain(tls: ssl.SSLObject) -> Sequence[bytes]:
    """DER, leaf first, anchor last; public in Python 3.13, private before."""
    public = getattr(tls, "get_verified_chain", None)
    if public is not None:
        return tuple(public())
    private: Any = tls._sslobj  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other way before 3.13
    encoding_der = 2  # _ssl.ENCODING_DER
    return tuple(certificate.public_bytes(encoding_der) for certificate in private.get_verified_chain())
