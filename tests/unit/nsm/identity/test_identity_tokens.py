"""Path tokens: what is signed, when it is signed again, and what is believed."""

import base64
import json
from dataclasses import replace

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from nsm.identity.tokens import PathTokens, PathTokenVerifier
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Claims, Material
from nsm.model.path import Path, PathSegment
from nsm.session.path import MAX_TOKEN_BYTES
from nsm.session.timing import refresh_delay
from tests.fakes.identity import FakeAuthority

AUTHORITY = FakeAuthority()
PEER = "spiffe://example.org/manager/m-1"
IDENTITY = AUTHORITY.identity("client/nsc-1", ttl=3600)
NOW = IDENTITY.current.svid.not_after - 3600.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def tokens(clock: Clock | None = None, max_lifetime: float = 600.0) -> PathTokens:
    return PathTokens(IDENTITY, max_lifetime=max_lifetime, clock=clock or Clock())


def part(text: str, number: int) -> bytes:
    encoded = text.split(".")[number]
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def signed(claims: object) -> str:
    """A JWS over any payload, signed with our own key."""
    key = serialization.load_der_private_key(IDENTITY.current.svid.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm="ES256")


def test_header_and_claims_are_exactly_those_of_upstream() -> None:
    token = tokens().token(PEER)
    assert json.loads(part(token.text, 0)) == {"alg": "ES256", "typ": "JWT"}
    exp = int(NOW + 600)
    assert json.loads(part(token.text, 1)) == {
        "sub": "spiffe://example.org/client/nsc-1",
        "aud": [PEER],
        "exp": exp,
    }
    assert token.expires == exp * 10**9


def test_the_signature_is_es256_over_the_first_two_parts() -> None:
    text = tokens().token(PEER).text
    raw = part(text, 2)
    assert len(raw) == 64
    key = x509.load_der_x509_certificate(IDENTITY.leaf).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key.verify(der, text.rpartition(".")[0].encode(), ec.ECDSA(hashes.SHA256()))


def test_without_a_peer_there_is_no_audience() -> None:
    assert "aud" not in json.loads(part(tokens().token(None).text, 1))


def test_no_token_outlives_our_own_svid() -> None:
    not_after = IDENTITY.current.svid.not_after
    clock = Clock(not_after - 100)
    assert tokens(clock).token(PEER).expires == int(not_after) * 10**9


def test_the_peers_certificate_limits_the_returned_expiry_but_not_the_claim() -> None:
    token = tokens().token(PEER, NOW + 60)
    assert token.expires == int((NOW + 60) * 10**9)
    assert json.loads(part(token.text, 1))["exp"] == int(NOW + 600)


def test_a_token_is_handed_out_again_for_a_tenth_of_its_life_and_then_signed_anew() -> None:
    clock = Clock()
    source = tokens(clock)
    first = source.token(PEER)
    clock.now += 59
    assert source.token(PEER) == first
    assert source.token("spiffe://example.org/other").text != first.text
    clock.now += 2
    assert source.token(PEER).expires > first.expires


def test_after_a_rotation_the_new_key_signs() -> None:
    identity = AUTHORITY.identity("client/r")
    source = PathTokens(identity, max_lifetime=600, clock=Clock())
    old_leaf, old = identity.leaf, source.token(PEER)
    identity.rotate()
    new = source.token(PEER)
    verifier = PathTokenVerifier()
    assert verifier.signed_by(new.text, identity.leaf)
    assert not verifier.signed_by(new.text, old_leaf)
    assert verifier.signed_by(old.text, old_leaf)


def test_for_a_connection_of_before_a_rotation_its_own_key_signs() -> None:
    identity = AUTHORITY.identity("client/k")
    source = PathTokens(identity, max_lifetime=600, clock=Clock())
    old_leaf, old_svid, old = identity.leaf, identity.current.svid, source.token(PEER)
    identity.rotate()
    assert source.token(PEER) != old
    kept = source.token(PEER, svid=old_svid)
    assert kept == old
    assert PathTokenVerifier().signed_by(kept.text, old_leaf)


def test_new_bundles_alone_do_not_sign_again() -> None:
    identity = AUTHORITY.identity("client/b")
    source = PathTokens(identity, max_lifetime=600, clock=Clock())
    first = source.token(PEER)
    identity.trust(AUTHORITY, FakeAuthority("other.org"))
    assert source.token(PEER) == first


@pytest.mark.parametrize("jump", [-3600.0, 900.0])
def test_a_jump_of_the_clock_signs_anew(jump: float) -> None:
    clock = Clock()
    source = tokens(clock)
    source.token(PEER)
    clock.now += jump
    assert source.token(PEER).expires == int(clock.now + 600) * 10**9


def test_with_an_expired_svid_nothing_is_signed_and_the_reason_is_given() -> None:
    with pytest.raises(NsmError, match="its SVID expired") as caught:
        tokens(Clock(IDENTITY.current.svid.not_after)).token(PEER)
    assert caught.value.code is Code.UNAVAILABLE


def test_an_rsa_svid_cannot_sign() -> None:
    identity = AUTHORITY.identity("client/rsa")
    identity.publish(Material(AUTHORITY.svid("client/rsa", is_rsa=True), identity.current.bundles))
    with pytest.raises(NsmError, match="must be EC P-256"):
        PathTokens(identity, max_lifetime=600).token(PEER)


@given(
    lifetime=st.floats(30, 3000),
    age=st.floats(0, 1, exclude_max=True),
    index=st.integers(0, 5),
    length=st.integers(1, 6),
)
def test_a_refresh_always_carries_a_new_token(lifetime: float, age: float, index: int, length: int) -> None:
    clock = Clock()
    source = tokens(clock, lifetime)
    source.token(PEER)
    clock.now += age * lifetime  # the connection may begin at any age of a token signed for another call
    token = source.token(PEER)
    segments = tuple(PathSegment(name=str(n), expires=token.expires) for n in range(length))
    clock.now += refresh_delay(Path(index=min(index, length - 1), segments=segments), clock.now) + 1
    assert source.token(PEER).text != token.text


def test_claims_are_read_without_the_signature() -> None:
    text = tokens().token(PEER).text
    claims = PathTokenVerifier().claims(text.rpartition(".")[0] + "." + "A" * 86)
    assert claims == Claims("spiffe://example.org/client/nsc-1", (PEER,), int(NOW + 600))


@pytest.mark.parametrize(
    ("payload", "claims"),
    [
        ({"sub": "s", "aud": "one", "exp": 5}, Claims("s", (), 5)),
        ({"sub": "s", "aud": ["a", "b"], "exp": 5}, Claims("s", ("a", "b"), 5)),
        ({"sub": "s", "aud": ["a", 1], "exp": 5.9}, Claims("s", (), 5)),
        ({"sub": 7, "exp": "5"}, Claims("", (), None)),
        ({"exp": True}, Claims("", (), None)),
        ({"exp": float("inf")}, Claims("", (), None)),
        ({"exp": float("nan")}, Claims("", (), None)),
        ({}, Claims("", (), None)),
        ([], None),
        ("text", None),
    ],
)
def test_claims_of_the_wrong_kind_count_as_missing(payload: object, claims: Claims | None) -> None:
    assert PathTokenVerifier().claims(signed(payload)) == claims


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "e30.e30", "\N{SNOWMAN}.e30.AA", "\ud800"])
def test_what_is_no_jwt_has_no_claims_and_no_signature(text: str) -> None:
    verifier = PathTokenVerifier()
    assert verifier.claims(text) is None
    assert not verifier.signed_by(text, IDENTITY.leaf)


@given(st.text(max_size=200) | st.lists(st.binary(max_size=60), min_size=3, max_size=3))
def test_nothing_anyone_sends_makes_the_verifier_fail(sent: str | list[bytes]) -> None:
    text = sent if isinstance(sent, str) else ".".join(base64.urlsafe_b64encode(one).decode() for one in sent)
    verifier = PathTokenVerifier()
    claims = verifier.claims(text)
    assert claims is None or isinstance(claims, Claims)
    assert not verifier.signed_by(text, IDENTITY.leaf)


def test_a_deeply_nested_payload_is_no_jwt() -> None:
    text = jwt.PyJWS().encode(b"[" * 9000, "k" * 32, algorithm="HS256")
    assert PathTokenVerifier().claims(text) is None


def test_an_oversized_token_is_not_even_read() -> None:
    claims = {"sub": "s", "aud": ["a"], "exp": 1, "pad": "x" * MAX_TOKEN_BYTES}
    text = signed(claims)
    verifier = PathTokenVerifier()
    assert verifier.claims(text) is None
    assert not verifier.signed_by(text, IDENTITY.leaf)
    assert verifier._claims.cache_info().currsize == 0


@given(st.integers(0, 2), st.integers(0, 60), st.sampled_from("AQgw_-09"))
def test_a_token_changed_in_any_place_is_not_believed(number: int, position: int, letter: str) -> None:
    parts = TOKEN.split(".")
    position %= len(parts[number]) - 1  # the last letter has bits that mean nothing
    changed = parts[number][:position] + letter + parts[number][position + 1 :]
    text = ".".join([*parts[:number], changed, *parts[number + 1 :]])
    assert VERIFIER.signed_by(text, IDENTITY.leaf) == (text == TOKEN)


TOKEN = tokens().token(PEER).text
VERIFIER = PathTokenVerifier()


def test_a_token_is_believed_only_under_the_certificate_that_signed_it() -> None:
    assert VERIFIER.signed_by(TOKEN, IDENTITY.leaf)
    assert not VERIFIER.signed_by(TOKEN, AUTHORITY.svid("client/nsc-1").chain[0])
    assert not VERIFIER.signed_by(TOKEN, AUTHORITY.svid("client/nsc-1", is_rsa=True).chain[0])
    assert not VERIFIER.signed_by(TOKEN, b"rubbish")


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_another_algorithm_is_not_believed(algorithm: str) -> None:
    text = jwt.PyJWS().encode(part(TOKEN, 1), "" if algorithm == "none" else "k" * 32, algorithm=algorithm)
    assert not VERIFIER.signed_by(text, IDENTITY.leaf)
    forged = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    assert not VERIFIER.signed_by(f"{forged}.{TOKEN.split('.')[1]}.", IDENTITY.leaf)


def test_verdicts_are_cached() -> None:
    verifier = PathTokenVerifier()
    for _ in range(3):
        assert verifier.signed_by(TOKEN, IDENTITY.leaf)
        assert verifier.claims(TOKEN) is not None
    assert verifier._signed_by.cache_info().misses == 1
    assert verifier._claims.cache_info().misses == 1


def test_no_token_and_no_key_is_shown() -> None:
    source = tokens()
    token = source.token(PEER)
    shown = repr(token) + repr(source) + repr(source._signers) + repr(replace(token, expires=1))
    assert token.text not in shown
    assert "eyJ" not in shown
