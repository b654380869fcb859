"""A root is replaced in three steps, in their order, each of which may be taken again after an interruption."""

import json
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from nsm.identity import replacement
from nsm.identity.__main__ import main
from nsm.identity.authority import Authority, create_authority, load_authority, save_authority
from nsm.identity.errors import IdentityError
from nsm.identity.files import write_private
from nsm.identity.replacement import next_file, replace_root

DOMAIN = "example.org"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    save_authority(path, create_authority(DOMAIN))
    return path


def step(file: Path, name: str) -> Authority:
    made = replace_root(file, name, ttl=3600, now=time.time())
    assert load_authority(file).pem() == made.pem()
    return made


def test_the_old_root_signs_until_everybody_can_know_the_new_one(file: Path) -> None:
    old = load_authority(file)
    prepared = step(file, "prepare")
    assert prepared.chain == old.chain
    assert stat.S_IMODE(next_file(file).stat().st_mode) == 0o600
    activated = step(file, "activate")
    assert activated.bundle == prepared.bundle[::-1]
    assert activated.key.private_numbers() != old.key.private_numbers()
    assert not next_file(file).exists()
    finished = step(file, "finish")
    assert finished.bundle == activated.bundle[:1]
    assert old.bundle[0] not in finished.bundle
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_another_host_gets_both_roots_by_sign(file: Path) -> None:
    prepared = step(file, "prepare")
    node = prepared.sign_node("node-2", 3600, time.time())
    output = file.with_name("node-2.pem")
    save_authority(output, node)
    assert load_authority(output).bundle == prepared.bundle
    assert load_authority(output).chain == node.chain
    with pytest.raises(IdentityError, match="where `init` ran"):
        replace_root(output, "prepare", ttl=3600, now=time.time())


@pytest.mark.parametrize("before", [(), ("prepare", "activate", "finish")])
@pytest.mark.parametrize("name", ["activate", "finish"])
def test_a_step_before_its_turn_is_refused_and_changes_nothing(
    file: Path, before: tuple[str, ...], name: str
) -> None:
    for one in before:
        step(file, one)
    refused(file, name)


@pytest.mark.parametrize(("before", "name"), [("prepare", "finish"), ("activate", "prepare")])
def test_no_step_is_left_out(file: Path, before: str, name: str) -> None:
    for one in ("prepare", "activate"):
        step(file, one)
        if one == before:
            break
    refused(file, name)


def refused(file: Path, name: str) -> None:
    content = {path: path.read_bytes() for path in file.parent.iterdir()}
    with pytest.raises(IdentityError, match=r"comes first|nothing to finish"):
        replace_root(file, name, ttl=3600, now=time.time())
    assert {path: path.read_bytes() for path in file.parent.iterdir()} == content


@pytest.mark.parametrize("name", ["prepare", "activate"])
def test_an_interrupted_step_is_completed_by_the_next_try(
    file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "activate":
        step(file, "prepare")
    saved: list[Path] = []

    def once(path: Path, authority: Authority) -> None:
        """The machine stops after the first file, or before one is removed."""
        if saved:
            raise KeyboardInterrupt
        saved.append(path)
        write_private(path, authority.pem())

    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(replacement, "save_authority", once)
        patch.setattr(Path, "unlink", stop)
        with pytest.raises(KeyboardInterrupt):
            replace_root(file, name, ttl=3600, now=time.time())
    assert saved == [next_file(file) if name == "prepare" else file]
    waiting = load_authority(next_file(file))
    made = step(file, name)
    assert waiting.bundle[0] in made.bundle
    assert len(made.bundle) == 2


def test_a_foreign_root_beside_ours_is_refused(file: Path) -> None:
    with file.open("ab") as end:
        end.write(create_authority("other.org").bundle_pem())
    with pytest.raises(IdentityError, match=r"nothing but roots of example\.org"):
        load_authority(file)


def test_an_intermediate_beside_our_root_is_refused(file: Path) -> None:
    root = load_authority(file)
    node = root.sign_node("node-2", 3600, time.time())
    with file.open("ab") as end:
        end.write(node.chain[0].public_bytes(serialization.Encoding.PEM))
    with pytest.raises(IdentityError, match=r"nothing but roots of example\.org"):
        load_authority(file)


def test_the_command_says_who_signs_and_who_is_trusted(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rotate-ca", "prepare", "--authority", str(file)]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[1:]] == ["signs", "trusted"]
    assert "PRIVATE" not in shown
    assert main(["show", "--json", "--authority", str(file), "--config", str(file.with_name("none"))]) == 0
    (other,) = json.loads(capsys.readouterr().out)["other_roots"]
    assert other in shown
    assert main(["rotate-ca", "finish", "--authority", str(file)]) == 1
    assert "rotate-ca activate comes first" in capsys.readouterr().err
