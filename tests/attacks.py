"""Somebody at the door of a manager or forwarder who may not: each attack, its reason and its one audit record.

Shared by scenario 26 on the embedded identity service and on SPIRE: ``Attack.opened`` says where identities come from.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nsm.identity.tokens import PathTokens
from nsm.model.connection import Connection, EventType, MonitorScopeSelector
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Material, Svid, Token
from nsm.model.path import Path, PathSegment
from nsm.service.daemon import Node
from nsm.transport.channel import Channels
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.lab.topology import TRUST_DOMAIN
from tests.fakes.caller import Caller, FixedTokens
from tests.fakes.identity import FakeAuthority
from tests.scenes import Scene, settled

HOPS: Final = ("manager", "forwarder")
VICTIM: Final = "victim"
THIEF: Final = "thief"
ENDPOINT: Final = "server"
SERVICE: Final = f"{ENDPOINT}-service"


class Opener(Protocol):
    """Opens a caller of ``url`` with the identity ``name``; ``tokens(node)`` may replace its tokens."""

    def __call__(self, name: str, url: str, tokens: Any = None) -> AbstractAsyncContextManager[Caller]: ...


@dataclass
class Attack:
    """A victim's connection, and somebody at the door of ``hop``."""

    lab: Scene
    hop: str
    victim: dict[str, Any]
    opened: Opener

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

    def caller(
        self, tokens: Callable[[Node], Any] | None = None, *, name: str = THIEF
    ) -> AbstractAsyncContextManager[Caller]:
        """At the hop's door, by default under the thief's own identity."""
        return self.opened(name, self.url, tokens)

    async def refused(self, who: Caller, connection: Connection) -> NsmError:
        """The error of the Request, after its one audit record."""
        since = self.lab.mark_log(self.daemon)
        error = await who.refused(connection)
        records = settled(lambda: self.lab.events(self.daemon, "audit", since=since), bool)
        assert len(records) == 1, records
        return error


def denied(error: NsmError, rule: str) -> None:
    assert error.code is Code.PERMISSION_DENIED
    assert error.message.startswith(f"{rule}: "), error
    assert "eyJ" not in str(error), "no token in a message"


async def an_expired_token(attack: Attack) -> None:
    def old(node: Node) -> PathTokens:
        return PathTokens(node.identity, max_lifetime=60, clock=lambda: time.time() - 3600)

    async with attack.caller(old) as thief:
        denied(await attack.refused(thief, thief.first(SERVICE)), "tokens_expired")


async def a_replayed_token(attack: Attack) -> None:
    async with attack.caller(name=VICTIM) as victim:
        peer = await victim.node.channels.get(attack.url).peer()
        stolen = victim.node.tokens.token(peer.spiffe_id)
    async with attack.caller(lambda _: FixedTokens(stolen.text, stolen.expires)) as thief:
        denied(await attack.refused(thief, thief.first(SERVICE)), "prev_token_signed")


@dataclass
class AboutAnother:
    """A ``TokenSource`` that signs with its own key for the client ``victim``."""

    node: Node
    spiffe_id: str = f"spiffe://{TRUST_DOMAIN}/client/{VICTIM}"

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
        own = thief.first(SERVICE)
        asked = replace(own, path=Path(0, (*own.route.segments, attack.segment)))
        denied(await attack.refused(thief, asked), "caller_is_subject")


async def a_tampered_path_segment(attack: Attack) -> None:
    async with attack.caller(name=VICTIM) as victim:
        foreign = victim.node.tokens.token(f"spiffe://{TRUST_DOMAIN}/client/somebody-else")
    async with attack.caller() as thief:
        own = thief.first(SERVICE)
        before = PathSegment(name=VICTIM, id=f"{VICTIM}-0", token=foreign.text, expires=foreign.expires)
        asked = replace(own, path=Path(1, (before, *own.route.segments)))
        denied(await attack.refused(thief, asked), "tokens_chained")


async def another_clients_connection_id(attack: Attack) -> None:
    async with attack.caller() as thief:
        own = thief.first(SERVICE)
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
    await forged(attack, TRUST_DOMAIN)


async def forged(attack: Attack, domain: str) -> None:
    """It trusts the lab, but the lab has no reason to trust it: not even in its own trust domain's name."""
    await not_let_in(attack, FakeAuthority(domain).svid(f"client/{VICTIM}"))


async def not_let_in(attack: Attack, svid: Svid) -> str:
    """Who shows this SVID is refused by TLS: the reason in the one audit record of the hop."""
    async with showing(attack, svid) as who:
        since = attack.lab.mark_log(attack.daemon)
        error = await who.refused(who.first(SERVICE), seconds=5.0)
        assert error.code is Code.UNAVAILABLE
        records = settled(lambda: attack.lab.events(attack.daemon, "audit", since=since), bool)
        assert len(records) == 1, records
        assert records[0]["refusal"]
        return str(records[0]["refusal"])


async def let_in(attack: Attack, svid: Svid) -> None:
    """Who shows this SVID passes TLS: its question is answered."""
    async with showing(attack, svid) as who:
        answers = who.node.channels.get(attack.url).stream(MONITOR_CONNECTIONS, MonitorScopeSelector())
        async with aclosing(answers):
            assert (await anext(answers)).type is EventType.INITIAL_STATE_TRANSFER


@asynccontextmanager
async def showing(attack: Attack, svid: Svid) -> AsyncIterator[Caller]:
    """A caller that shows this SVID whatever its issuer says by now, and trusts whom the lab trusts."""
    async with attack.caller() as honest:
        bundles = dict(honest.node.identity.current.bundles)
    holder = FakeAuthority().identity("holder")
    holder.publish(Material(svid, bundles))
    channels = Channels(holder, PathTokens(holder, max_lifetime=60), dial_timeout=5.0)
    try:
        yield Caller(VICTIM, attack.url, replace(honest.node, channels=channels))
    finally:
        await channels.close()


ATTACKS: Final[Sequence[Callable[[Attack], Awaitable[None]]]] = (
    an_expired_token,
    a_replayed_token,
    a_tampered_path_segment,
    another_clients_connection_id,
    a_token_about_another,
    a_foreign_trust_domain,
    an_unknown_authority,
)


async def each_is_refused(attack: Attack, attacks: Sequence[Callable[[Attack], Awaitable[None]]]) -> None:
    """Every one of them, one after the other; a failure names its attack."""
    for each in attacks:
        try:
            await each(attack)
        except BaseException as error:
            error.add_note(getattr(each, "__name__", repr(each)))
            raise
