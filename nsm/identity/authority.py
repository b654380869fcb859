"""The certificate authority of a trust domain, or its intermediate on one more host.

One PEM file holds all of it: the private key, the authority's own certificate, then its issuers up to the root.
The root alone is what others trust (the bundle); an SVID brings the certificates in between along, so every host
verifies every other with the same bundle. While the root is being replaced, the other root follows in the file.
"""

import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nsm.identity.errors import IdentityError
from nsm.identity.files import guard_directory, read_private, write_private
from nsm.identity.svid import is_p256, parse_spiffe_id, trust_domain_of
from nsm.model.errors import NsmError
from nsm.model.identity import Svid

ROOT_TTL: Final = 10 * 365 * 86400.0
NODE_TTL: Final = 365 * 86400.0
SVID_TTL: Final = 3600.0
"""Default lifetimes in seconds."""

BACKDATE: Final = timedelta(minutes=1)
"""Certificates are valid this much earlier, for hosts whose clocks differ."""

_NODE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62})")
_ROOT_NODE: Final = "root"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA with its key; ``chain`` starts with its own certificate and ends with the root's.

    ``other_roots`` are trusted beside it: the next or the last one, while the root is being replaced.
    """

    trust_domain: str
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    other_roots: tuple[x509.Certificate, ...] = field(default=(), repr=False)

    @property
    def node(self) -> str:
        """The host it was made for; ``root`` is where ``init`` ran."""
        names = self.chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    @property
    def is_root(self) -> bool:
        """Whether it is the root of the trust domain."""
        return len(self.chain) == 1

    @property
    def not_after(self) -> float:
        """When it, or an issuer of it, expires: Unix seconds."""
        return min(certificate.not_valid_after_utc.timestamp() for certificate in self.chain)

    @property
    def bundle(self) -> tuple[bytes, ...]:
        """What others trust: the certificates (DER) of the root and of the other roots."""
        return tuple(_der(root) for root in self.roots)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """Our own root first."""
        return (self.chain[-1], *self.other_roots)

    def issue(self, spiffe_id: str, ttl: float, now: float) -> Svid:
        """An SVID with a new EC P-256 key, valid ``ttl`` seconds but never longer than the authority.

        Raises:
            IdentityError: the id is of another trust domain, or the authority has expired.
        """
        _check_id(spiffe_id, self.trust_domain)
        if now >= self.not_after:
            raise IdentityError(
                f"the authority {self.node!r} of {self.trust_domain} expired {_date(self.not_after)}"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.fromtimestamp(int(min(now + ttl, self.not_after)), UTC)
        builder = _builder(self.chain[0].subject, _name(self.trust_domain, ""), key, now, end)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=False
            )
            .add_extension(_issuer_key(self.key), critical=False)
        )
        leaf = builder.sign(self.key, hashes.SHA256())
        return Svid(
            spiffe_id,
            tuple(_der(certificate) for certificate in (leaf, *self.chain[:-1])),
            key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            end.timestamp(),
        )

    def sign_node(self, node: str, ttl: float, now: float) -> "Authority":
        """An intermediate for the host ``node``: it signs SVIDs of the same trust domain and no further CAs.

        Raises:
            IdentityError: a bad name, or this authority is an intermediate itself.
        """
        if not _NODE.fullmatch(node) or node == _ROOT_NODE:
            raise IdentityError(
                f"expected a node name of up to 63 letters, digits, dots and dashes, not 'root', got {node!r}"
            )
        if not self.is_root:
            raise IdentityError(
                f"this is the intermediate authority of {self.node!r}; run `nsm-identity sign` where `init` ran"
            )
        if now >= self.not_after:
            raise IdentityError(f"the root authority of {self.trust_domain} expired {_date(self.not_after)}")
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.fromtimestamp(int(min(now + ttl, self.not_after)), UTC)
        subject = _name(self.trust_domain, node)
        builder = _builder(self.chain[0].subject, subject, key, now, end)
        builder = _as_authority(builder, self.trust_domain, path_length=0)
        certificate = builder.add_extension(_issuer_key(self.key), critical=False).sign(
            self.key, hashes.SHA256()
        )
        return Authority(self.trust_domain, (certificate, *self.chain), key, self.other_roots)

    def pem(self) -> bytes:
        """The file's content, private key included."""
        key = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key + b"".join(_pem(certificate) for certificate in (*self.chain, *self.other_roots))

    def bundle_pem(self) -> bytes:
        """What others trust as PEM, for the ``federation`` of other trust domains."""
        return b"".join(_pem(root) for root in self.roots)


def create_authority(trust_domain: str, ttl: float = ROOT_TTL, now: float | None = None) -> Authority:
    """A new root; IdentityError if ``trust_domain`` is no name of one."""
    try:
        domain = trust_domain_of(trust_domain)
    except NsmError as error:
        raise IdentityError(error.message) from error
    begin = time.time() if now is None else now
    key = ec.generate_private_key(ec.SECP256R1())
    end = datetime.fromtimestamp(int(begin + ttl), UTC)
    subject = _name(domain, _ROOT_NODE)
    builder = _as_authority(_builder(subject, subject, key, begin, end), domain, path_length=None)
    return Authority(domain, (builder.sign(key, hashes.SHA256()),), key)


def load_authority(path: Path) -> Authority:
    """The authority of a file of mode 0600; IdentityError says what is wrong with it."""
    if not path.exists():
        raise IdentityError(
            f"{path}: no authority yet: make one with `nsm-identity init --trust-domain NAME`,"
            " or bring a file from the first host with `nsm-identity sign`"
        )
    content = read_private(path)
    try:
        key = serialization.load_pem_private_key(content, password=None)
        found = tuple(x509.load_pem_x509_certificates(content))
    except (ValueError, TypeError) as error:
        raise IdentityError(
            f"{path}: expected PEM: a private key, then certificates up to the root: {error}"
        ) from error
    chain, others = _split(found)
    problem = _chain_problem(key, chain)
    if problem:
        raise IdentityError(f"{path}: {problem}")
    domain = _trust_domain(path, chain[-1])
    if any(_trust_domain(path, root) != domain or _issuer_problem((root,)) for root in others):
        raise IdentityError(f"{path}: expected nothing but roots of {domain} after its chain")
    return Authority(domain, chain, cast("ec.EllipticCurvePrivateKey", key), others)


def save_authority(path: Path, authority: Authority) -> None:
    """Write the authority's file, mode 0600; its directory is made 0700 if it is missing."""
    if not path.parent.exists():
        guard_directory(path.parent, is_shared=False)
    write_private(path, authority.pem())


def load_bundle(path: Path) -> tuple[bytes, ...]:
    """The CA certificates (DER) of a PEM file; empty if there is no such file: no trust."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return tuple(_der(certificate) for certificate in x509.load_pem_x509_certificates(content))
    except ValueError as error:
        raise IdentityError(f"{path}: expected PEM certificates of a trust domain's CAs: {error}") from error


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate in hex, to compare over the telephone."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _split(
    found: tuple[x509.Certificate, ...],
) -> tuple[tuple[x509.Certificate, ...], tuple[x509.Certificate, ...]]:
    """The chain, which ends at the first certificate that names itself as its issuer, and what follows it."""
    end = next((at for at, one in enumerate(found, 1) if one.issuer == one.subject), len(found))
    return found[:end], found[end:]


def _chain_problem(key: object, chain: tuple[x509.Certificate, ...]) -> str:
    """Why the pieces do not make an authority; empty = they do."""
    if not is_p256(key):
        return "expected an EC P-256 key"
    if not chain or cast("ec.EllipticCurvePrivateKey", key).public_key() != chain[0].public_key():
        return "the first certificate is not that of the key"
    return _issuer_problem(chain)


def _issuer_problem(chain: tuple[x509.Certificate, ...]) -> str:
    """Which certificate is not issued by the next, or the last not by itself; empty = none."""
    for child, parent in zip(chain, (*chain[1:], chain[-1]), strict=True):
        try:
            child.verify_directly_issued_by(parent)
        except Exception as error:  # noqa: BLE001 - the library documents no common base of what it raises here
            return f"expected each certificate to be issued by the next, and the last by itself: {error!r}"
    return ""


def _trust_domain(path: Path, root: x509.Certificate) -> str:
    try:
        names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return trust_domain_of(names.get_values_for_type(x509.UniformResourceIdentifier)[0])
    except (x509.ExtensionNotFound, IndexError, NsmError) as error:
        raise IdentityError(
            f"{path}: the root's certificate does not name a trust domain (URI spiffe://<name>)"
        ) from error


def _check_id(spiffe_id: str, trust_domain: str) -> None:
    try:
        canonical = parse_spiffe_id(spiffe_id)
    except NsmError as error:
        raise IdentityError(error.message) from error
    if trust_domain_of(canonical) != trust_domain:
        raise IdentityError(f"{spiffe_id}: expected an id of our trust domain {trust_domain}")


def _as_authority(
    builder: x509.CertificateBuilder, trust_domain: str, *, path_length: int | None
) -> x509.CertificateBuilder:
    """``builder`` with what makes it a CA of the trust domain."""
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    )


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePrivateKey, now: float, end: datetime
) -> x509.CertificateBuilder:
    begin = datetime.fromtimestamp(int(now), UTC) - BACKDATE
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(trust_domain: str, node: str) -> x509.Name:
    """A subject; the trust domain is in it only for readers, cut to what X.520 allows."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"NSM {trust_domain}"[:64])]
    if node:
        parts.append(x509.NameAttribute(NameOID.COMMON_NAME, node))
    return x509.Name(parts)


def _issuer_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
