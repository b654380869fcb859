"""What makes a certificate an X.509-SVID, and whose trust domain vouches for it (SPIFFE X.509-SVID §4, §5).

OpenSSL checks signatures and dates against the union of all bundles. That alone accepts
``spiffe://a.org/admin`` signed by the CA of ``b.org`` once the two are federated, so the anchor of the chain
must lie in the bundle of the identity's own trust domain (trap 60).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from spiffe import SpiffeId, TrustDomain
from spiffe.errors import PySpiffeError

from nsm.model.errors import Code, NsmError

MAX_SPIFFE_ID_BYTES: Final = 2048
"""SPIFFE-ID §2.3."""


def verify_anchor(chain: Sequence[bytes], bundles: Mapping[str, Sequence[bytes]]) -> str:
    """The SPIFFE ID of a chain that OpenSSL verified (DER, leaf first, anchor last).

    ``bundles`` are the CA certificates (DER) by name of the trust domain.

    Raises:
        NsmError: UNAUTHENTICATED unless the leaf is a valid X.509-SVID whose anchor is in the bundle of its
            own trust domain.
    """
    if not chain:
        raise _refused("the peer presented no certificate")
    spiffe_id = leaf_spiffe_id(chain[0])
    domain = trust_domain_of(spiffe_id)
    bundle = bundles.get(domain)
    if not bundle:
        known = ", ".join(sorted(bundles)) or "none"
        raise _refused(f"{spiffe_id}: no bundle for its trust domain {domain!r} (known: {known})")
    if chain[-1] not in bundle:
        raise _refused(f"{spiffe_id}: its chain does not end at a CA of its own trust domain {domain!r}")
    return spiffe_id


def leaf_spiffe_id(leaf: bytes) -> str:
    """The SPIFFE ID of an X.509-SVID (DER); NsmError UNAUTHENTICATED names what is wrong with it."""
    try:
        certificate = x509.load_der_x509_certificate(leaf)
        names = _uris(certificate)
        is_signer = _signs_certificates(certificate)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise _refused(f"the peer's certificate cannot be read: {error}") from error
    if len(names) != 1:
        raise _refused(f"an X.509-SVID has exactly one URI name, got {len(names)}")
    spiffe_id = parse_spiffe_id(names[0])
    if is_signer:
        raise _refused(f"{spiffe_id}: a CA or signing certificate is no leaf")
    return spiffe_id


def parse_spiffe_id(text: str) -> str:
    """The canonical form of a workload's SPIFFE ID; NsmError UNAUTHENTICATED if ``text`` is none."""
    if len(text.encode()) > MAX_SPIFFE_ID_BYTES:
        raise _refused(f"a SPIFFE ID has at most {MAX_SPIFFE_ID_BYTES} bytes")
    try:
        parsed = SpiffeId(text)
    except PySpiffeError as error:
        raise _refused(f"expected spiffe://<trust domain>/<path>: {error}") from error
    if not parsed.path:
        raise _refused(f"{text!r} names a trust domain, not a workload: expected a path")
    return str(parsed)


def trust_domain_of(text: str) -> str:
    """The name of the trust domain of a SPIFFE ID, or of a trust domain's name itself."""
    try:
        return str(TrustDomain(text))
    except PySpiffeError as error:
        raise _refused(f"expected the name of a trust domain such as example.org: {error}") from error


def not_after(leaf: bytes) -> float:
    """When a certificate (DER) expires, Unix seconds."""
    return x509.load_der_x509_certificate(leaf).not_valid_after_utc.timestamp()


def is_p256(key: object) -> bool:
    """Whether a private or public key is on the curve that ES256 signs with (trap 6)."""
    return isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and isinstance(
        key.curve, ec.SECP256R1
    )


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _signs_certificates(certificate: x509.Certificate) -> bool:
    """CA, certSign or cRLSign: none of them may be set in a leaf (SPIFFE X.509-SVID §4.1, §4.3)."""
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.key_cert_sign or usage.crl_sign


def _refused(reason: str) -> NsmError:
    return NsmError(Code.UNAUTHENTICATED, reason)
