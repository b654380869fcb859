"""Each policy rule by upstream's name, as a pure function (reference §3.3).

A rule returns why it denies, ``None`` = it allows. Rules see only tokens of the part of the path they are given;
that is what upstream's Rego files see too, so a verdict here and there is the same, with two deliberate differences.
A token with several audiences is an evaluation error upstream, here ``tokens_chained`` denies it. And a token that says
it is not good yet passes upstream, here ``tokens_expired`` denies it; tokens of NSM's own components never say so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nsm.model.identity import TokenVerifier


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule may look at."""

    verifier: TokenVerifier
    tokens: Sequence[str]
    """The tokens of the segments that the rule is about, first hop first."""
    index: int
    """The segment of the hop that evaluates the rules (server), or that made the call (client)."""
    peer_leaf: bytes
    """The certificate (DER) of the TLS peer."""
    now: float
    """Unix seconds."""
    name: str = ""
    """The registered name (``client_allowed`` only)."""
    owners: Mapping[str, str] | None = None
    """First path id by registered name (``client_allowed`` only)."""


LEEWAY: Final = 60.0
"""Seconds that a signer's clock may be ahead of ours: as much as certificates are backdated."""

Rule = Callable[[Facts], str | None]


def tokens_chained(facts: Facts) -> str | None:
    """Each token is meant for the hop that signed the next one."""
    for position in range(len(facts.tokens) - 1):
        left = facts.verifier.claims(facts.tokens[position])
        right = facts.verifier.claims(facts.tokens[position + 1])
        if left is None or right is None:
            return f"the token of segment {position if left is None else position + 1} is not a JWT"
        if len(left.aud) != 1:
            return (
                f"the token of segment {position} must have an aud list with one element, has {len(left.aud)}"
            )
        if not right.sub or left.aud[0] != right.sub:
            return (
                f"the token of segment {position} is for {left.aud[0]!r},"
                f" but segment {position + 1} was signed by {right.sub!r}"
            )
    return None


def tokens_expired(facts: Facts) -> str | None:
    """No token has expired, and none is of the future."""
    for position, token in enumerate(facts.tokens):
        claims = facts.verifier.claims(token)
        if claims is None or claims.exp is None:
            return f"the token of segment {position} has no expiry"
        if claims.exp <= facts.now:
            return f"the token of segment {position} expired {facts.now - claims.exp:.0f} s ago"
        if claims.begin is not None and claims.begin > facts.now + LEEWAY:
            return f"the token of segment {position} is good in {claims.begin - facts.now:.0f} s only"
    return None


def tokens_valid(facts: Facts) -> str | None:
    """Every token is a JWT."""
    for position, token in enumerate(facts.tokens):
        if facts.verifier.claims(token) is None:
            return f"the token of segment {position} is not a JWT"
    return None


def prev_token_signed(facts: Facts) -> str | None:
    """The caller's token carries the signature of the certificate it called with."""
    position = facts.index - 1
    if not 0 <= position < len(facts.tokens):
        return "the path has no segment of the caller"
    if not facts.verifier.signed_by(facts.tokens[position], facts.peer_leaf):
        return f"the token of segment {position} is not signed with the caller's certificate"
    return None


def next_token_signed(facts: Facts) -> str | None:
    """The next hop's token carries the signature of the certificate it answered with."""
    position = facts.index + 1
    if not 0 <= position < len(facts.tokens):
        return "the answer has no segment of the next hop"
    if not facts.verifier.signed_by(facts.tokens[position], facts.peer_leaf):
        return f"the token of segment {position} is not signed with the next hop's certificate"
    return None


def client_allowed(facts: Facts) -> str | None:
    """A registered name belongs to whoever registered it first (trap 28)."""
    owner = (facts.owners or {}).get(facts.name)
    if owner is None:
        return None
    claims = facts.verifier.claims(facts.tokens[0]) if facts.tokens else None
    caller = claims.sub if claims else ""
    return None if caller == owner else f"{facts.name!r} is registered by {owner!r}, not by {caller!r}"


RULES: Final[Mapping[str, Rule]] = {
    "common/tokens_chained": tokens_chained,
    "common/tokens_expired": tokens_expired,
    "common/tokens_valid": tokens_valid,
    "registry/client_allowed": client_allowed,
    "server/prev_token_signed": prev_token_signed,
    "client/next_token_signed": next_token_signed,
}
"""Every rule under the path of upstream's file, in the order upstream evaluates them within a folder."""

COMMON: Final = ("common/tokens_chained", "common/tokens_expired", "common/tokens_valid")
SERVER: Final = (*COMMON, "server/prev_token_signed")
CLIENT: Final = (*COMMON, "client/next_token_signed")
