"""Which certificates are X.509-SVIDs, and whose CA vouches for them."""

import pytest

from nsm.identity.svid import leaf_spiffe_id, not_after, parse_spiffe_id, verify_anchor
from nsm.model.errors import Code, NsmError
from tests.fakes.identity import FakeAuthority

HERE = FakeAuthority()
THERE = FakeAuthority("other.org")
BUNDLES = {"example.org": HERE.bundle, "other.org": THERE.bundle}


def test_a_chain_that_ends_in_its_own_trust_domain_has_its_id() -> None:
    leaf = HERE.svid("client/nsc-1").chain[0]
    assert verify_anchor([leaf, HERE.certificate], BUNDLES) == "spiffe://example.org/client/nsc-1"


def test_a_chain_by_an_intermediate_has_its_id() -> None:
    node = FakeAuthority(issuer=HERE)
    svid = node.svid("client/nsc-2")
    assert verify_anchor([*svid.chain, HERE.certificate], BUNDLES) == svid.spiffe_id


@pytest.mark.parametrize(("signer", "anchor"), [(THERE, THERE), (HERE, THERE)])
def test_an_id_vouched_for_by_another_trust_domain_is_refused(
    signer: FakeAuthority, anchor: FakeAuthority
) -> None:
    leaf = signer.svid("admin", uris=["spiffe://example.org/admin"]).chain[0]
    with pytest.raises(NsmError, match=r"does not end at a CA of its own trust domain 'example\.org'"):
        verify_anchor([leaf, anchor.certificate], BUNDLES)


def test_an_authority_of_the_same_name_that_nobody_trusts_is_refused() -> None:
    rogue = FakeAuthority()
    with pytest.raises(NsmError, match="does not end at"):
        verify_anchor([rogue.svid("admin").chain[0], rogue.certificate], BUNDLES)


def test_a_trust_domain_without_a_bundle_is_refused_and_the_known_ones_are_named() -> None:
    stranger = FakeAuthority("third.org")
    with pytest.raises(NsmError, match=r"no bundle .*'third\.org' \(known: example\.org, other\.org\)"):
        verify_anchor([stranger.svid("a").chain[0], stranger.certificate], BUNDLES)
    with pytest.raises(NsmError, match="known: none"):
        verify_anchor([stranger.svid("a").chain[0]], {})


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (HERE.svid("a", uris=[]).chain[0], "exactly one URI name, got 0"),
        (HERE.svid("a", uris=["spiffe://example.org/a", "spiffe://example.org/b"]).chain[0], "got 2"),
        (HERE.svid("a", uris=["https://example.org/a"]).chain[0], "expected spiffe://"),
        (HERE.svid("a", uris=["spiffe://example.org"]).chain[0], "expected a path"),
        (HERE.svid("a", uris=["spiffe://example.org/a/../b"]).chain[0], "expected spiffe://"),
        (HERE.svid("a", is_ca=True, cert_sign=True).chain[0], "no leaf"),
        (HERE.svid("a", cert_sign=True).chain[0], "no leaf"),
        (HERE.certificate, "exactly one URI name, got 0"),
        (b"rubbish", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_what_is_no_svid_is_refused_with_the_reason(leaf: bytes, reason: str) -> None:
    with pytest.raises(NsmError, match=reason) as caught:
        verify_anchor([leaf, HERE.certificate], BUNDLES)
    assert caught.value.code is Code.UNAUTHENTICATED


def test_no_certificate_at_all_is_refused() -> None:
    with pytest.raises(NsmError, match="no certificate"):
        verify_anchor([], BUNDLES)


def test_an_id_is_shown_in_its_canonical_form_and_not_too_long() -> None:
    assert parse_spiffe_id("spiffe://Example.org/A") == "spiffe://example.org/A"
    with pytest.raises(NsmError, match="at most 2048 bytes"):
        parse_spiffe_id("spiffe://example.org/" + "a" * 2048)


def test_the_end_of_a_certificate_is_known() -> None:
    svid = HERE.svid("a", ttl=100)
    assert not_after(svid.chain[0]) == svid.not_after
    assert leaf_spiffe_id(svid.chain[0]) == svid.spiffe_id
