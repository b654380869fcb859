"""Our SVID and everyone's bundles from a SPIFFE Workload API, kept current for as long as the process lives.

One stream of FetchX509SVID on the event loop. Whatever ends it (agent gone, identity not issued yet, an update that
cannot be read) is logged once, the last good material stays in use, and a new stream is opened after a short pause.
The library's own ``X509Source`` would block in its constructor, close for ever at the first malformed update, take
unix sockets only and reconnect as slowly as its channel backs off; of ``spiffe`` we use the messages and parsers.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final

import grpc
import grpc.aio
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf.message import DecodeError
from spiffe import TrustDomain, X509Bundle, X509Svid
from spiffe._proto import workload_pb2
from spiffe.errors import PySpiffeError

from nsm.identity.svid import is_p256, parse_spiffe_id, trust_domain_of, verify_anchor
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.identity import Material, Svid

FETCH_SVID: Final = "/SpiffeWorkloadAPI/FetchX509SVID"
HEADER: Final = (("workload.spiffe.io", "true"),)
"""Every call must carry it, so that no browser or proxy can be tricked into one (SPIFFE Workload Endpoint §3)."""

FIRST_PAUSE: Final = 0.1
"""Seconds before the second try; doubled after each failure."""
LONGEST_PAUSE: Final = 1.0
"""Seconds; a restarted agent is found again within this time."""

_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
)

_UNREADABLE: Final = (PySpiffeError, ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)

_log: Final = structlog.get_logger(__name__)


class SpiffeSource:
    """Implements ``nsm.model.identity.Identity``; made by ``connect``, ended by ``close``."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` as in SPIFFE_ENDPOINT_SOCKET; nothing is dialled yet."""
        self._target = _target(endpoint)
        self._endpoint = endpoint
        self._material: Material | None = None
        self._callbacks: dict[object, Callable[[Material], None]] = {}
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._complaint = ""

    @classmethod
    async def connect(cls, endpoint: str) -> "SpiffeSource":
        """Wait, for as long as it takes, for the endpoint and the first SVID; every new reason is logged.

        Raises:
            NsmError: INVALID_ARGUMENT for an endpoint that is neither ``unix:///path`` nor ``tcp://ip:port``.
        """
        source = cls(endpoint)
        source._task = asyncio.create_task(source._supervise(), name="workload-api")
        first = asyncio.create_task(source._first.wait(), name="first-svid")
        try:
            done, _ = await asyncio.wait({source._task, first}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await source.close()
            raise
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        if source._task in done:
            source._task.result()
        return source

    @property
    def current(self) -> Material:
        """The newest material; NsmError UNAVAILABLE before the first."""
        if self._material is None:
            raise NsmError(Code.UNAVAILABLE, f"no SVID from {self._endpoint} yet")
        return self._material

    def subscribe(self, callback: Callable[[Material], None]) -> Callable[[], None]:
        """Call ``callback`` on the event loop at each change; the result ends the subscription."""
        handle = object()
        self._callbacks[handle] = callback
        return lambda: self._callbacks.pop(handle, None) and None

    def verify_anchor(self, chain: Sequence[bytes]) -> str:
        """See ``nsm.identity.svid.verify_anchor``; judged by the newest bundles."""
        return verify_anchor(chain, self.current.bundles)

    async def close(self) -> None:
        """End the stream; the last material stays readable."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _supervise(self) -> None:
        """Stream after stream, for ever; the pause between them grows until an update was good."""
        pause = FIRST_PAUSE
        while True:
            try:
                async with aclosing(self._updates()) as updates:
                    async for response in updates:
                        self._publish(material_of(response))
                        pause = FIRST_PAUSE
                self._complain("the Workload API ended the stream")
            except grpc.aio.AioRpcError as error:
                self._complain(f"{error.code().name}: {error.details()}")
            except NsmError as error:
                self._complain(f"malformed update: {error.message}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _updates(self) -> AsyncGenerator[workload_pb2.X509SVIDResponse, None]:
        """The answers of one stream on a connection of its own."""
        async with grpc.aio.insecure_channel(self._target, options=_OPTIONS) as channel:
            call = channel.unary_stream(
                FETCH_SVID,
                request_serializer=workload_pb2.X509SVIDRequest.SerializeToString,
            )  # bytes come back: grpc.aio would wait for ever after an answer that it cannot deserialize
            async for message in call(workload_pb2.X509SVIDRequest(), metadata=HEADER):
                yield parse_response(message)

    def _publish(self, material: Material) -> None:
        """Make ``material`` the newest, tell whoever subscribed."""
        self._complaint = ""
        if material == self._material:
            return
        self._material = material
        svid = material.svid
        _log.info(
            "identity.updated",
            spiffe_id=svid.spiffe_id,
            not_after=svid.not_after,
            trust=sorted(material.bundles),
        )
        self._first.set()
        for callback in list(self._callbacks.values()):
            try:
                callback(material)
            except Exception:  # noqa: BLE001 - a subscriber's fault must not end the supervision
                _log.exception("identity.subscriber_failed")

    def _complain(self, reason: str) -> None:
        """Log a reason once, not at every try."""
        if reason == self._complaint:
            return
        self._complaint = reason
        _log.warning(
            "identity.waiting" if self._material is None else "identity.stale",
            endpoint=self._endpoint,
            reason=reason,
        )


def parse_response(message: bytes) -> workload_pb2.X509SVIDResponse:
    """An update; NsmError INVALID_ARGUMENT if ``message`` is none."""
    try:
        return workload_pb2.X509SVIDResponse.FromString(message)
    except DecodeError as error:
        raise invalid("update", "an X509SVIDResponse", f"{len(message)} other bytes") from error


def material_of(response: workload_pb2.X509SVIDResponse) -> Material:
    """The first SVID of an update, which is the default one, and the bundles of every trust domain.

    Raises:
        NsmError: INVALID_ARGUMENT or UNAUTHENTICATED if any part of the update is unusable.
    """
    if not response.svids:
        raise invalid("svids", "at least one SVID", "none")
    first = response.svids[0]
    try:
        parsed = X509Svid.parse_raw(first.x509_svid, first.x509_svid_key)
        bundles = {
            trust_domain_of(name): _bundle(name, ders) for name, ders in response.federated_bundles.items()
        }
    except _UNREADABLE as error:
        raise invalid("svids", "DER certificates and a PKCS#8 key", str(error)) from error
    svid = _svid(parsed)
    for other in response.svids:
        domain = trust_domain_of(other.spiffe_id)
        bundles[domain] = tuple(dict.fromkeys((*bundles.get(domain, ()), *_bundle(domain, other.bundle))))
    return Material(svid, bundles)


def _svid(parsed: X509Svid) -> Svid:
    """The model's form of an SVID whose key fits and can sign path tokens."""
    leaf, key = parsed.leaf, parsed.private_key
    if not is_p256(key):
        raise invalid("svids.x509_svid_key", "an EC P-256 key (path tokens are ES256)", type(key).__name__)
    if key.public_key() != leaf.public_key():
        raise invalid("svids.x509_svid_key", "the key of the certificate", "another one")
    return Svid(
        parse_spiffe_id(str(parsed.spiffe_id)),
        tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in parsed.cert_chain),
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        leaf.not_valid_after_utc.timestamp(),
    )


def _bundle(name: str, ders: bytes) -> tuple[bytes, ...]:
    """The CA certificates of one trust domain, each DER; none for a domain that is no longer trusted."""
    if not ders:
        return ()
    try:
        authorities = X509Bundle.parse_raw(TrustDomain(name), ders).x509_authorities
    except _UNREADABLE as error:
        raise invalid("bundle", f"concatenated DER certificates of {name}", str(error)) from error
    return tuple(sorted(one.public_bytes(serialization.Encoding.DER) for one in authorities))


def _target(endpoint: str) -> str:
    """The gRPC name of ``unix:///path`` or ``tcp://ip:port``."""
    if endpoint.startswith("unix:"):
        path = "/" + endpoint.removeprefix("unix:").lstrip("/")
        if path != "/":
            return f"unix:{path}"
    elif endpoint.startswith("tcp://") and endpoint.count(":") > 1:
        return endpoint.removeprefix("tcp://")
    raise invalid("SPIFFE_ENDPOINT_SOCKET", "unix:///path or tcp://ip:port", endpoint)
