"""Who wears which SVID in a lab, seen from outside: the Workload API hands them out, and they are seen in use.

Whoever is on a connection's path signs tokens with its SVID, which the near manager's monitor tells; the registry shows
its own in a handshake. An SVID is known by the root that signed it and by the roots that came with it at first: who
wears it has taken those, for updates arrive in their order. No log is read.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import TrustDomain, WorkloadApiClient

from nsm.model.connection import EventType, MonitorScopeSelector
from nsm.service.config import NsmSettings
from nsm.service.daemon import open_node
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.lab import namespaces
from nsmctl.lab.identities import OPERATOR, TRUST_DOMAIN
from nsmctl.lab.topology import REGISTRY_PORT, Node, Topology
from tests.fakes.fd_peer import Papers

TURN_S: Final = 0.5
"""How often is looked; an SVID of the scenarios is the newest for several seconds."""
DIAL_S: Final = 5.0
REGISTRY: Final = "registry"


@dataclass(frozen=True)
class Trust:
    """Which root signed an SVID, and all that came with it; each by the identifier of its key."""

    signer: bytes
    roots: frozenset[bytes]


@dataclass(frozen=True)
class Handed:
    """An SVID as the Workload API handed it out first."""

    leaf: x509.Certificate
    trust: Trust
    papers: Papers

    @classmethod
    def of(cls, context: Any) -> "Handed":
        """Of an ``X509Context``."""
        svid = context.default_svid
        roots = context.x509_bundle_set.get_bundle_for_trust_domain(
            TrustDomain(TRUST_DOMAIN)
        ).x509_authorities
        issuer = svid.cert_chain[-1].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        key = svid.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        papers = Papers(tuple(map(_der, svid.cert_chain)), key, tuple(map(_der, roots)))
        return cls(svid.leaf, Trust(issuer.key_identifier, frozenset(map(key_id, roots))), papers)

    def has_signed(self, token: str) -> bool:
        """Whether its key did, whatever the token says."""
        key = self.leaf.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        with suppress(jwt.InvalidSignatureError):
            jwt.PyJWS().decode(token, key, algorithms=["ES256"])
            return True
        return False


class Wardrobe:
    """The SVIDs handed out to each identity by name, and those of them that were worn."""

    def __init__(self, near: Node, places: Mapping[str, Node]) -> None:
        """``places``: who is watched, and its node. Of them all but the registry are on connections' paths."""
        self._near = near
        self._places = places
        self._handed: dict[str, dict[int, Handed]] = {name: {} for name in (*places, OPERATOR)}
        self._worn: dict[str, set[int]] = {name: set() for name in places}
        self._fresh: dict[str, None] = {}
        self._old: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._watching: asyncio.Task[None] | None = None

    def until_worn(self, count: int, wanted: Callable[[Trust], bool], *, seconds: float) -> None:
        """Until each wore so many SVIDs of a trust that is ``wanted``, and every token is by a known SVID.

        AssertionError after ``seconds``; what ended the monitor's stream, if it has ended.
        """
        deadline = time.monotonic() + seconds
        while (missing := self._missing(count, wanted)) or self._fresh:
            assert time.monotonic() < deadline, f"not {count} worn: {missing}; unknown: {list(self._fresh)}"
            if self._watching is not None and self._watching.done():
                self._watching.result()
            time.sleep(TURN_S)
            self._judge()
            self._ask_registry()

    def _missing(self, count: int, wanted: Callable[[Trust], bool]) -> dict[str, int]:
        """Who was seen with fewer, and how many those are."""
        worn = {
            name: sum(1 for serial in serials if wanted(self._handed[name][serial].trust))
            for name, serials in self._worn.items()
        }
        return {name: number for name, number in worn.items() if number < count}

    def _judge(self) -> None:
        """Find the signer of each new token; one whose SVID has not been told yet waits."""
        for token in list(self._fresh):
            name = jwt.decode(token, options={"verify_signature": False})["sub"].rpartition("/")[2]
            for serial, handed in reversed(list(self._handed[name].items())):
                if handed.has_signed(token):
                    self._worn[name].add(serial)
                    self._old.add(token)
                    del self._fresh[token]
                    break

    def _ask_registry(self) -> None:
        """Which SVID it shows us now."""
        us = list(self._handed[OPERATOR].values())[-1]
        address = (self._near.ip, REGISTRY_PORT)
        with namespaces.entered(self._near.netns):
            plain = socket.create_connection(address, DIAL_S)
        with plain, us.papers.context(is_server=False).wrap_socket(plain) as tls:
            shown = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number
        if shown in self._handed[REGISTRY]:
            self._worn[REGISTRY].add(shown)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the tokens of all connections that pass the near manager while the block runs, on a thread."""
        self._watching = task = self._loop.create_task(self._watch())
        thread = threading.Thread(target=lambda: self._loop.run_until_complete(asyncio.wait({task})))
        thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(task.cancel)
            thread.join()
            self._loop.close()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """``work`` on that thread; grpcio serves one event loop at a time."""
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _watch(self) -> None:
        settings = NsmSettings(name=OPERATOR, identity_dir=str(self._near.identities), dial_timeout=DIAL_S)
        async with open_node(settings) as node:
            stream = node.channels.get(self._near.manager).stream(MONITOR_CONNECTIONS, MonitorScopeSelector())
            async with aclosing(stream) as events:
                async for event in events:
                    if event.type is not EventType.DELETE:
                        tokens = {s.token for c in event.connections.values() for s in c.route.segments}
                        self._fresh.update(dict.fromkeys(tokens - self._old))

    @contextmanager
    def handed(self, name: str) -> Iterator[None]:
        """Take what an identity is handed out while the block runs, from the SVID that it has at the beginning."""
        place = self._places.get(name, self._near)
        known = self._handed[name]
        first = threading.Event()

        def take(context: Any) -> None:
            known.setdefault(context.default_svid.leaf.serial_number, Handed.of(context))
            first.set()

        client = WorkloadApiClient(f"unix://{place.identities}/{name}.sock")
        stream = client.stream_x509_contexts(take, lambda _: None)
        try:
            assert first.wait(DIAL_S), f"nothing from the Workload API for {name}"
            yield
        finally:
            stream.cancel()
            client.close()


@contextmanager
def wardrobe(topology: Topology, workloads: Mapping[str, Node]) -> Iterator[Wardrobe]:
    """Looks on while the block runs; ``workloads``: the nodes of the clients and endpoints that are connected."""
    near = topology.nodes[0]
    places = {REGISTRY: near, **workloads}
    for node in topology.nodes:
        places |= {f"{role}-{node.name}": node for role in ("manager", "forwarder")}
    made = Wardrobe(near, places)
    with ExitStack() as stack:
        for name in (*places, OPERATOR):
            stack.enter_context(made.handed(name))
        stack.enter_context(made.watching())
        yield made


def key_id(certificate: x509.Certificate) -> bytes:
    """The identifier of a certificate's key, as what it signs names it."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
