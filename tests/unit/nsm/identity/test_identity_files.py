"""Authority and registration files: what is accepted, and the one message that names every mistake."""

import os
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nsm.identity.authority import create_authority, load_authority, load_bundle, save_authority
from nsm.identity.durations import seconds
from nsm.identity.errors import IdentityError
from nsm.identity.files import write_private
from nsm.identity.registration import Entry, load_registration

NOW = time.time()
AUTHORITY = create_authority("example.org")


def test_an_authority_survives_its_file_of_mode_0600(tmp_path: Path) -> None:
    file = tmp_path / "state" / "authority.pem"
    save_authority(file, AUTHORITY)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert load_authority(file).pem() == AUTHORITY.pem()
    assert [path.name for path in file.parent.iterdir()] == ["authority.pem"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.pem"
    write_private(file, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match=r"a\.pem: cannot be written: No space left"):
        write_private(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_svid_is_what_spiffe_asks_for() -> None:
    svid = AUTHORITY.issue("spiffe://example.org/client/a", 3600, NOW)
    leaf = x509.load_der_x509_certificate(svid.chain[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://example.org/client/a"]
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = serialization.load_der_private_key(svid.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == leaf.public_key()
    assert svid.not_after == int(NOW + 3600) == leaf.not_valid_after_utc.timestamp()


def test_no_svid_outlives_its_authority() -> None:
    node = AUTHORITY.sign_node("node-2", 100, NOW)
    assert node.issue("spiffe://example.org/a", 3600, NOW).not_after == int(NOW + 100) == node.not_after
    with pytest.raises(IdentityError, match=r"authority 'node-2' of example\.org expired"):
        node.issue("spiffe://example.org/a", 3600, NOW + 101)


def test_an_intermediate_signs_no_further_authority() -> None:
    node = AUTHORITY.sign_node("node-2", 3600, NOW)
    limits = node.chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    with pytest.raises(IdentityError, match="where `init` ran"):
        node.sign_node("node-3", 3600, NOW)


@pytest.mark.parametrize("node", ["", "root", "a b", "../x", "-x", "n" * 65])
def test_a_bad_node_name_is_refused(node: str) -> None:
    with pytest.raises(IdentityError, match="expected a node name"):
        AUTHORITY.sign_node(node, 3600, NOW)


@pytest.mark.parametrize("spiffe_id", ["spiffe://other.org/a", "spiffe://example.org", "example.org/a", ""])
def test_an_id_of_elsewhere_is_not_signed(spiffe_id: str) -> None:
    with pytest.raises(IdentityError, match="expected"):
        AUTHORITY.issue(spiffe_id, 3600, NOW)


def test_an_authority_without_a_name_of_a_trust_domain_is_refused() -> None:
    with pytest.raises(IdentityError, match="expected the name of a trust domain"):
        create_authority("not a domain")


def test_a_missing_authority_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="nsm-identity init"):
        load_authority(tmp_path / "none.pem")


def test_an_authority_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pem"
    save_authority(file, AUTHORITY)
    file.chmod(0o644)
    with pytest.raises(IdentityError, match=r"expected mode 0600 .* got 0644"):
        load_authority(file)


OTHER = create_authority("example.org")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "expected PEM"),
        (b"rubbish", "expected PEM"),
        (AUTHORITY.bundle_pem(), "expected PEM"),
        (AUTHORITY.pem().partition(b"-----BEGIN CERT")[0], "expected PEM"),
        (AUTHORITY.pem().partition(b"-----BEGIN CERT")[0] + OTHER.bundle_pem(), "not that of the key"),
        (AUTHORITY.sign_node("n", 60, NOW).pem().rpartition(b"-----BEGIN CERT")[0], "issued by the next"),
    ],
)
def test_pieces_that_make_no_authority_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.pem"
    write_private(file, content)
    with pytest.raises(IdentityError, match=reason):
        load_authority(file)


def test_no_key_is_shown_by_an_authority() -> None:
    svid = AUTHORITY.issue("spiffe://example.org/a", 60, NOW)
    assert "PRIVATE" not in repr(AUTHORITY)
    assert "\\x" not in repr(svid)


def test_a_bundle_file_that_is_missing_means_no_trust_and_rubbish_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.pem"
    assert load_bundle(file) == ()
    file.write_bytes(AUTHORITY.bundle_pem() + OTHER.bundle_pem())
    assert load_bundle(file) == (*AUTHORITY.bundle, *OTHER.bundle)
    file.write_bytes(b"rubbish")
    with pytest.raises(IdentityError, match="expected PEM certificates"):
        load_bundle(file)


def test_a_registration_has_defaults_for_all_but_the_id(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "svid_ttl: 90s\nfederation: {other.org: /etc/other.pem}\nentries:\n"
        "- spiffe_id: spiffe://example.org/client/a\n"
        "- {spiffe_id: spiffe://example.org/b, socket: /tmp/b.sock, uid: root, gid: 7}\n"
    )
    found = load_registration(file, "example.org", Path("/run/x"))
    assert found.svid_ttl == 90
    assert found.federation == {"other.org": Path("/etc/other.pem")}
    assert found.entries == (
        Entry("spiffe://example.org/client/a", Path("/run/x/a.sock"), os.geteuid()),
        Entry("spiffe://example.org/b", Path("/tmp/b.sock"), 0, 7),
    )


def test_every_mistake_of_a_registration_is_named_in_one_message(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "sockets: x\nsvid_ttl: soon\ndirectory: run\nfederation: {a b: /x, c.org: rel}\nentries:\n"
        "- spiffe_id: spiffe://other.org/a\n"
        "- {uid: nobody-here, socket: rel}\n"
        "- text\n"
        f"- {{spiffe_id: 'spiffe://example.org/a', socket: /{'s' * 120}}}\n"
        "- {spiffe_id: 'spiffe://example.org/x', gid: -1, mode: 7}\n"
        "- {spiffe_id: 'spiffe://example.org/c'}\n- {spiffe_id: 'spiffe://example.org/d/c'}\n"
    )
    with pytest.raises(IdentityError) as caught:
        load_registration(file, "example.org", Path("/run/x"))
    message = str(caught.value)
    for place in (
        "sockets: unknown",
        "svid_ttl: expected a duration",
        "directory: expected an absolute path",
        "federation.a b: ",
        "federation.c.org: expected an absolute path",
        "entries[0].spiffe_id: expected an id of our trust domain example.org",
        "entries[1].spiffe_id: expected spiffe://example.org/<role>/<name>, got None",
        "entries[1].uid: expected a user of this host",
        "entries[1].socket: expected an absolute path",
        "entries[2]: expected a mapping",
        "entries[3].socket: ",
        "entries[4].gid: ",
        "entries[4].mode: unknown",
        "/c.sock: is the socket of 2 entries",
    ):
        assert f"{file}: {place}" in message or place.startswith("/c.sock"), place
    assert "c.sock: is the socket of 2 entries" in message


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00", "entries: 5", "federation: 5", "1: 2"])
def test_a_file_of_another_shape_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(IdentityError, match=r"r\.yaml: .*expected"):
        load_registration(file, "example.org", tmp_path)


def test_a_missing_registration_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"none\.yaml: expected a registration file"):
        load_registration(tmp_path / "none.yaml", "example.org", tmp_path)


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("1h30m", 5400), ("2d", 172800), ("1y", 31536000), (5, 5)]
)
def test_durations_are_written_as_people_do(text: object, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "0s", "1", "1w", "-1s", 0, True, None, "1h 1m"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(IdentityError, match="expected a duration above zero"):
        seconds(text)
