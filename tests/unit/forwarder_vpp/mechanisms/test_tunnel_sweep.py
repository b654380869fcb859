"""Every tunnel of the explicit tuple, unasked: both halves of a negotiation agree on one and the same tunnel."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder_vpp import mechanisms
from forwarder_vpp.dataplane.contract.intent import VxlanEnd, WireguardEnd
from forwarder_vpp.mechanisms.all import TUNNELS, tunnel
from forwarder_vpp.mechanisms.refused import REASONS, refusal
from forwarder_vpp.mechanisms.tunnel import Choice, Tunnel, Underlay
from forwarder_vpp.mechanisms.vxlan import with_parity
from forwarder_vpp.mechanisms.wireguard import DST_OWN_PORT, PORT, SRC_OWN_PORT
from nsm.identity.wireguard_keys import new_key_pair
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import MECHANISM_TYPES, MTU, PAYLOADS, REMOTE, SRC_IP, SRC_PORT, Mechanism

HERE = Underlay("192.0.2.1", 1500)
THERE = Underlay("192.0.2.2", 1400)
HERE6 = Underlay("2001:db8::1", 1500)
THERE6 = Underlay("2001:db8::2", 9000)
ids = [each.type for each in TUNNELS]


def choice(port: int) -> Choice:
    return Choice(6, port, *new_key_pair())


def test_the_sweep_has_something_to_sweep() -> None:
    assert len(TUNNELS) >= 2
    assert {each.payload for each in TUNNELS} == set(PAYLOADS)
    files = {path.stem for path in Path(str(mechanisms.__file__)).parent.glob("*.py")}
    assert {each.type.lower() for each in TUNNELS} < files


def test_mechanisms_do_not_know_each_other() -> None:
    folder = Path(str(mechanisms.__file__)).parent
    names = {each.type.lower() for each in TUNNELS} | {"kernel", "refused"}
    for name in names:
        tree = ast.parse((folder / f"{name}.py").read_text())
        siblings = {
            node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1
        }
        assert siblings <= {"tunnel"}, name


@pytest.mark.parametrize("kind", TUNNELS, ids=ids)
@pytest.mark.parametrize(("here", "there"), [(HERE, THERE), (HERE6, THERE6)], ids=["v4", "v6"])
def test_both_halves_make_the_same_tunnel(kind: Tunnel, here: Underlay, there: Underlay) -> None:
    ours, theirs = choice(51900), choice(51901)
    offered = kind.offer(ours, here)
    assert (offered.cls, offered.type) == (REMOTE, kind.type)
    agreed = kind.accept(offered, theirs, there)
    assert int(agreed.get(MTU)) == min(here.mtu, there.mtu) - kind.overhead(here.ip)
    near, far = kind.requesting_end(agreed, ours), kind.answering_end(agreed, theirs)
    assert isinstance(near, VxlanEnd | WireguardEnd)
    assert isinstance(far, VxlanEnd | WireguardEnd)
    assert (near.local, near.local_port) == (far.remote, far.remote_port)
    assert (near.remote, near.remote_port) == (far.local, far.local_port)
    if isinstance(near, VxlanEnd):
        assert isinstance(far, VxlanEnd)
        assert near.vni == far.vni == 6
    else:
        assert isinstance(far, WireguardEnd)
        assert (near.remote_public_key, far.remote_public_key) == (theirs.public_key, ours.public_key)
        assert not near.shared
        assert not far.shared


@pytest.mark.parametrize("kind", TUNNELS, ids=ids)
def test_a_refresh_is_the_same_again(kind: Tunnel) -> None:
    ours, theirs = choice(51900), choice(51901)
    agreed = kind.accept(kind.offer(ours, HERE), theirs, THERE)
    assert kind.accept(agreed, theirs, THERE) == agreed


@pytest.mark.parametrize("kind", TUNNELS, ids=ids)
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (SRC_IP, ""),
        (SRC_IP, "nonsense"),
        (SRC_IP, "2001:db8::9"),
        (SRC_IP, THERE.ip),
        (SRC_PORT, "0"),
        (SRC_PORT, "x"),
    ],
)
def test_bad_parameters_are_named(kind: Tunnel, parameter: str, value: str) -> None:
    offered = kind.offer(choice(51900), HERE).having(**{parameter: value})
    with pytest.raises(NsmError) as caught:
        kind.answering_end(kind.accept(offered, choice(51901), THERE), choice(51901))
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert parameter in caught.value.field


def test_wireguard_towards_a_go_peer_shares_its_port() -> None:
    kind = tunnel("WIREGUARD")
    assert kind is not None
    ours, theirs = choice(51900), choice(51901)
    offered = kind.offer(ours, HERE)
    assert offered.get(SRC_PORT) == str(PORT)
    answer_of_go = kind.accept(offered, theirs, THERE).without(DST_OWN_PORT)
    near = kind.requesting_end(answer_of_go, ours)
    assert isinstance(near, WireguardEnd)
    assert (near.local_port, near.remote_port, near.shared) == (PORT, PORT, True)
    asked_by_go = kind.accept(offered.without(SRC_OWN_PORT), theirs, THERE)
    assert not asked_by_go.get(DST_OWN_PORT)
    far = kind.answering_end(asked_by_go, theirs)
    assert isinstance(far, WireguardEnd)
    assert (far.local_port, far.remote_port, far.shared) == (PORT, PORT, True)


@pytest.mark.parametrize("key", ["", "short", "!" * 44])
def test_wireguard_wants_a_public_key(key: str) -> None:
    kind = tunnel("WIREGUARD")
    assert kind is not None
    offered = kind.offer(choice(51900), HERE).having(src_public_key=key)
    with pytest.raises(NsmError, match="public key"):
        kind.accept(offered, choice(51901), THERE)


@given(st.integers(0, 2**32), st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str))
def test_two_nodes_that_answer_each_other_never_choose_the_same_vni(
    number: int, one: str, other: str
) -> None:
    a = with_parity(number, Mechanism(REMOTE, "VXLAN", {SRC_IP: one}), other)
    b = with_parity(number, Mechanism(REMOTE, "VXLAN", {SRC_IP: other}), one)
    assert 0 <= a < 2**24
    assert (a % 2 != b % 2) or one == other


def test_vni_parity_reads_the_original_addresses() -> None:
    swapped = Mechanism(REMOTE, "VXLAN", {SRC_IP: "10.0.0.1", "orig_src_ip": "10.0.0.9"})
    assert with_parity(8, swapped, "10.0.0.5") == 9
    assert with_parity(9, swapped.without("orig_src_ip"), "10.0.0.5") == 8


def test_every_type_nsm_knows_is_carried_or_refused_with_a_reason() -> None:
    carried = {each.type for each in TUNNELS} | {"KERNEL"}
    assert carried | REASONS.keys() == set(MECHANISM_TYPES)
    for kind in REASONS:
        error = refusal(Mechanism(REMOTE, kind), "mechanism_preferences")
        assert error.code is Code.UNIMPLEMENTED
        assert kind in error.message
    assert refusal(Mechanism(REMOTE, "MAGIC"), "m").code is Code.INVALID_ARGUMENT
