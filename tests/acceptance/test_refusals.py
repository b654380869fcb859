"""Scenario 26: who may not is refused with a reason, and each refusal is exactly one audit record.

Against the running manager and forwarder, over their real sockets, while another client's connection carries on.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nsm.identity.tokens import PathTokens
from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Material, Svid, Token
from nsm.model.path import Path, PathSegment
from nsm.service.daemon import Node
from nsm.transport.channel import Channels
from nsmctl.lab import identities
from tests.fakes.caller import Caller, FixedTokens, caller
from tests.fakes.identity import FakeAuthority
from tests.scenes import Scene, carried, settled

HOPS = ("manager", "forwarder")


@dataclass
class Attack:
    """A victim's connection, and somebody at the door of ``hop``."""

    lab: Scene
    hop: str
    victim: dict[str, Any]

    @property
    def url(self) -> str:
        near = self.lab.near
        return near.manager if self.hop == "manager" else f"unix://{near.directory}/forwarder.sock"

    @property
    def daemon(self) -> str:
        return f"{self.lab.near.name}/{self.hop}"

    @property
    def segment(self) -> PathSegment:
        """The victim's segment of the hop: what somebody who has seen the path knows."""
        found = next(hop for hop in self.victim["path"] if hop["name"] == f"{self.hop}-{self.lab.near.name}")
        return PathSegment(name=found["name"], id=found["id"])

    @asynccontextmanager
    async def caller(self, tokens: Callable[[Node], Any] | None = None) -> AsyncIterator[Caller]:
        async with caller("thief", self.url, self.lab.near.identities, tokens=tokens) as made:
            yield made

    async def refused(self, who: Caller, connection: Connection) -> NsmError:
        """The error of the Request, after its one audit record."""
        since = self.lab.mark_log(self.daemon)
        error = await who.refused(connection)
        records = settled(lambda: self.lab.events(self.daemon, "audit", since=since), bool)
        assert len(records) == 1, records
        return error


@pytest.fixture(params=HOPS)
def attack(lab: Scene, request: pytest.FixtureRequest) -> Any:
    """The victim is connected; after the attack its packets still arrive."""
    lab.endpoint("server", node=lab.near)
    (connection,) = lab.client("victim", "server-service")
    identities.register(lab.near, "client", "thief")
    yield Attack(lab, request.param, connection)
    identities.unregister(lab.near, "thief")
    carried(lab.probe(connection, "victim", "server", rate=200, seconds=0.2))


def denied(error: NsmError, rule: str) -> None:
    assert error.code is Code.PERMISSION_DENIED
    assert error.message.startswith(f"{rule}: "), error
    assert "eyJ" not in str(error), "no token in a message"


async def an_expired_token(attack: Attack) -> None:
    def old(node: Node) -> PathTokens:
        return PathTokens(node.identity, max_lifetime=60, clock=lambda: time.time() - 3600)

    async with attack.caller(old) as thief:
        denied(await attack.refused(thief, thief.first("server-service")), "tokens_expired")


async def a_replayed_token(attack: Attack) -> None:
    settings = attack.lab.near.identities
    async with caller("victim", attack.url, settings) as victim:
        peer = await victim.node.channels.get(attack.url).peer()
        stolen = victim.node.tokens.token(peer.spiffe_id)
    async with attack.caller(lambda _: FixedTokens(stolen.text, stolen.expires)) as thief:
        denied(await attack.refused(thief, thief.first("server-service")), "prev_token_signed")


@dataclass
class AboutAnother:
    """A ``TokenSource`` that signs with its own key for the client ``victim``."""

    node: Node
    spiffe_id: str = "spiffe://lab.nsm/client/victim"

    def token(
        self, audience: str | None, peer_not_after: float | None = None, svid: Svid | None = None
    ) -> Token:
        own = svid or self.node.identity.current.svid
        key = serialization.load_der_private_key(own.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        expires = int(time.time()) + 60
        claims = {"sub": self.spiffe_id, "aud": [audience], "exp": expires}
        return Token(jwt.encode(claims, key, algorithm="ES256"), expires * 10**9)


async def a_token_about_another(attack: Attack) -> None:
    async with attack.caller(AboutAnother) as thief:
        own = thief.first("server-service")
        asked = replace(own, path=Path(0, (*own.route.segments, attack.segment)))
        denied(await attack.refused(thief, asked), "caller_is_subject")


async def a_tampered_path_segment(attack: Attack) -> None:
    async with caller("victim", attack.url, attack.lab.near.identities) as victim:
        foreign = victim.node.tokens.token("spiffe://lab.nsm/client/somebody-else")
    async with attack.caller() as thief:
        own = thief.first("server-service")
        before = PathSegment(name="victim", id="victim-0", token=foreign.text, expires=foreign.expires)
        asked = replace(own, path=Path(1, (before, *own.route.segments)))
        denied(await attack.refused(thief, asked), "tokens_chained")


async def another_clients_connection_id(attack: Attack) -> None:
    async with attack.caller() as thief:
        own = thief.first("server-service")
        asked = replace(own, path=Path(0, (*own.route.segments, attack.segment)))
        denied(await attack.refused(thief, asked), "connection_owner")
        since = attack.lab.mark_log(attack.daemon)
        with pytest.raises(NsmError) as caught:
            await thief.close(asked)
        denied(caught.value, "connection_owner")
        assert len(attack.lab.events(attack.daemon, "audit", since=since)) == 1


async def a_foreign_trust_domain(attack: Attack) -> None:
    await forged(attack, "evil.nsm")


async def an_unknown_authority(attack: Attack) -> None:
    await forged(attack, "lab.nsm")


async def forged(attack: Attack, domain: str) -> None:
    """It trusts the lab, but the lab has no reason to trust it: not even in its own trust domain's name."""
    async with attack.caller() as honest:
        bundles = dict(honest.node.identity.current.bundles)
    forger = FakeAuthority(domain).identity("client/victim")
    forger.publish(Material(forger.current.svid, bundles))
    channels = Channels(forger, PathTokens(forger, max_lifetime=60), dial_timeout=5.0)
    try:
        since = attack.lab.mark_log(attack.daemon)
        thief = Caller("victim", attack.url, replace(honest.node, channels=channels))
        error = await thief.refused(thief.first("server-service"), seconds=5.0)
        assert error.code is Code.UNAVAILABLE
        records = settled(lambda: attack.lab.events(attack.daemon, "audit", since=since), bool)
        assert len(records) == 1, records
        assert records[0]["refusal"]
    finally:
        await channels.close()


ATTACKS = (
    an_expired_token,
    a_replayed_token,
    a_tampered_path_segment,
    another_clients_connection_id,
    a_token_about_another,
    a_foreign_trust_domain,
    an_unknown_authority,
)


async def test_each_is_refused_with_a_reason_and_one_audit_record(attack: Attack) -> None:
    for each in ATTACKS:
        try:
            await each(attack)
        except BaseException as error:
            error.add_note(each.__name__)
            raise
