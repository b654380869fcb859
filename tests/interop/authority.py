"""A SPIRE server's CA is replaced as its operator does it: prepared, activated, the old one tainted, then revoked."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from nsmctl.lab.topology import Node

from .monitor import PATIENCE, in_mesh
from .spire import Registrations


@dataclass(frozen=True)
class Authority:
    """The CA of a server; it is named by its subject key identifier in hex, as SPIRE does."""

    registrations: Registrations

    @property
    def active(self) -> str:
        """What signs now."""
        return str(self._ask("show")["active"]["authority_id"])

    def prepare(self) -> str:
        """Another CA, trusted from now on; its name."""
        return str(self._ask("prepare")["prepared_authority"]["authority_id"])

    def activate(self, prepared: str) -> None:
        """It signs from now on."""
        self._ask("activate", "-authorityID", prepared)

    def taint(self, old: str) -> None:
        """What it signed is replaced at once."""
        self._ask("taint", "-authorityID", old)

    def revoke(self, old: str) -> None:
        """It is trusted no longer."""
        self._ask("revoke", "-authorityID", old)

    def _ask(self, *words: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            self.registrations.ask("localauthority", "x509", *words, "-output", "json")
        )
        return answer


async def trusted(node: Node, trust_domain: str, count: int) -> None:
    """Until the node's agent gives out so many CAs of a trust domain."""
    changed = asyncio.Event()
    async with in_mesh(node) as mesh, asyncio.timeout(PATIENCE):
        mesh.identity.subscribe(lambda _: changed.set())
        while len(mesh.identity.current.bundles.get(trust_domain, ())) != count:
            await changed.wait()
            changed.clear()


async def signer(node: Node, url: str) -> str:
    """The name of the CA that signed the SVID which ``url`` shows now."""
    async with in_mesh(node) as mesh:
        peer = await mesh.channels.get(url).peer()
    leaf = x509.load_der_x509_certificate(peer.leaf)
    identifier = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert identifier is not None
    return identifier.hex()
