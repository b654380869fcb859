"""Identities without a Workload API: an in-memory CA of one trust domain and the identities it signs.

The certificates are made here, not with the code under test; only ``verify_anchor`` is the real one.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nsm.identity.svid import verify_anchor
from nsm.model.identity import Material, Svid

BACKDATE = timedelta(minutes=5)


class FakeAuthority:
    """A CA of one trust domain (EC P-256); ``issuer`` makes it an intermediate of another one."""

    def __init__(self, trust_domain: str = "example.org", *, issuer: "FakeAuthority | None" = None) -> None:
        self.trust_domain = trust_domain
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {trust_domain}")])
        self._parents: tuple[bytes, ...] = ()
        signer = issuer or self
        now = datetime.now(UTC)
        self._certificate = (
            x509.CertificateBuilder(signer._name, self._name, self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(signer._key_identifier(), critical=False)
            .sign(signer._key, hashes.SHA256())
        )
        self._root: FakeAuthority = issuer._root if issuer else self
        if issuer:
            self._parents = (self.certificate, *issuer._parents)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """Tells authorities of the same name apart, as those of one trust domain are."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())

    @property
    def certificate(self) -> bytes:
        """The CA certificate (DER)."""
        return self._certificate.public_bytes(serialization.Encoding.DER)

    @property
    def bundle(self) -> tuple[bytes, ...]:
        """What others trust: the root's certificate (DER)."""
        return (self._root.certificate,)

    def identity(
        self, path: str, *, ttl: float = 3600, federated: Sequence["FakeAuthority"] = ()
    ) -> "FakeIdentity":
        """An identity ``spiffe://<trust domain>/<path>`` that also trusts the ``federated`` authorities."""
        return FakeIdentity(self, path, ttl=ttl, federated=federated)

    def svid(
        self,
        path: str,
        *,
        ttl: float = 3600,
        uris: Sequence[str] | None = None,
        is_ca: bool = False,
        cert_sign: bool = False,
        is_rsa: bool = False,
    ) -> Svid:
        """An SVID; ``ttl`` seconds from now, negative = expired. The other arguments make invalid ones."""
        spiffe_id = f"spiffe://{self.trust_domain}/{path.lstrip('/')}"
        names = [x509.UniformResourceIdentifier(uri) for uri in ([spiffe_id] if uris is None else uris)]
        key = rsa.generate_private_key(65537, 2048) if is_rsa else ec.generate_private_key(ec.SECP256R1())
        end = datetime.fromtimestamp(int(time.time() + ttl), UTC)
        builder = (
            x509.CertificateBuilder(self._name, x509.Name([]), key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(datetime.now(UTC), end) - BACKDATE)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=cert_sign, digital_signature=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        builder = builder.add_extension(self._key_identifier(), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        leaf = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
        pkcs8 = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Svid(spiffe_id, (leaf, *self._parents), pkcs8, end.timestamp())


class FakeIdentity:
    """Implements ``nsm.model.identity.Identity``; changes only when told to."""

    def __init__(
        self, authority: FakeAuthority, path: str, *, ttl: float, federated: Sequence[FakeAuthority] = ()
    ) -> None:
        self._authority = authority
        self._path = path
        self._ttl = ttl
        self._callbacks: list[Callable[[Material], None]] = []
        bundles = {other.trust_domain: other.bundle for other in (authority, *federated)}
        self._material = Material(authority.svid(path, ttl=ttl), bundles)

    @property
    def spiffe_id(self) -> str:
        """Our own SPIFFE ID."""
        return self._material.svid.spiffe_id

    @property
    def leaf(self) -> bytes:
        """The leaf of the newest SVID (DER)."""
        return self._material.svid.chain[0]

    @property
    def current(self) -> Material:
        """The newest material."""
        return self._material

    def subscribe(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        """Call ``callback`` at each change; the result ends the subscription."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def verify_anchor(self, chain: Sequence[bytes]) -> str:
        """As the real source does."""
        return verify_anchor(chain, self._material.bundles)

    def rotate(self, *, authority: FakeAuthority | None = None, ttl: float | None = None) -> Material:
        """Make and publish a new SVID; ``authority``: signed by (and trusting) another CA from now on."""
        if authority is not None:
            self._authority = authority
        svid = self._authority.svid(self._path, ttl=self._ttl if ttl is None else ttl)
        bundles = dict(self._material.bundles)
        bundles[self._authority.trust_domain] = self._authority.bundle
        return self.publish(Material(svid, bundles))

    def trust(self, *authorities: FakeAuthority) -> Material:
        """Replace the bundles by those of ``authorities`` (several of one trust domain are merged)."""
        bundles: dict[str, tuple[bytes, ...]] = {}
        for authority in authorities:
            bundles[authority.trust_domain] = bundles.get(authority.trust_domain, ()) + authority.bundle
        return self.publish(Material(self._material.svid, bundles))

    def publish(self, material: Material) -> Material:
        """Make ``material`` the newest and tell the subscribers."""
        self._material = material
        for callback in list(self._callbacks):
            callback(material)
        return material


def _usage(*, key_cert_sign: bool = False, digital_signature: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
