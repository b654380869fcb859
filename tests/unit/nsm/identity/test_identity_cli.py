"""The commands as a person types them."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nsm.identity.__main__ import main


@pytest.fixture(autouse=True)
def only_our_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NSM_IDENTITY_CONFIG", "NSM_IDENTITY_DIR", "NSM_SVID_TTL", "NSM_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NSM_IDENTITY_AUTHORITY", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("NSM_IDENTITY_CONFIG", str(tmp_path / "identities.yaml"))
    monkeypatch.setenv("NSM_IDENTITY_DIR", str(tmp_path / "s"))


def init(domain: str = "example.org") -> int:
    return main(["init", "--trust-domain", domain])


def test_init_makes_a_private_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init() == 0
    file = tmp_path / "authority.pem"
    content = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert init() == 0
    assert file.read_bytes() == content
    assert "is there already" in capsys.readouterr().out


def test_init_for_another_trust_domain_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    init()
    assert init("other.org") == 1
    shown = capsys.readouterr()
    assert "nsm-identity init: " in shown.err
    assert "holds the authority of example.org, not of other.org" in shown.err


def test_sign_writes_an_authority_that_shows_its_chain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init()
    output = tmp_path / "node-2.pem"
    assert main(["sign", "node-2", "--output", str(output)]) == 0
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    capsys.readouterr()
    assert main(["show", "--json", "--authority", str(output)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trust_domain"], facts["node"]) == ("example.org", "node-2")
    assert [one["name"] for one in facts["chain"]] == ["node-2", "root"]
    assert main(["sign", "node-3", "--authority", str(output), "--output", str(tmp_path / "n3.pem")]) == 1
    assert "where `init` ran" in capsys.readouterr().err
    assert not (tmp_path / "n3.pem").exists()


def test_sign_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init()
    output = tmp_path / "mine"
    output.write_text("mine")
    assert main(["sign", "n", "--output", str(output)]) == 1
    assert output.read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


def test_show_lists_what_is_registered_and_no_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init()
    (tmp_path / "identities.yaml").write_text("entries: [{spiffe_id: spiffe://example.org/client/a, gid: 5}]")
    for arguments in (["show"], ["show", "--json"], ["show", "--bundle"]):
        assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "spiffe://example.org/client/a" in shown
    assert "no socket" in shown
    assert "BEGIN CERTIFICATE" in shown
    assert "PRIVATE" not in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["show"], "nsm-identity init"),
        (["sign", "n"], "nsm-identity init"),
        (["serve"], "nsm-identity init"),
        (["init", "--trust-domain", "a b"], "expected the name of a trust domain"),
    ],
)
def test_what_a_person_can_mend_is_said_in_one_line(
    arguments: list[str], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nsm.identity", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve", "--svid-ttl", "soon"], ["serve", "--log-level", "LOUD"], ["init"], ["sing", "x"]],
)
def test_wrong_arguments_leave_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: nsm-identity" in capsys.readouterr().err


def test_help_teaches_one_host_two_hosts_and_federation(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for text in (
        "init --trust-domain",
        "spiffe_id:",
        "sign node-2",
        "show --bundle",
        "SPIFFE_ENDPOINT_SOCKET",
    ):
        assert text in shown


def test_serve_says_ready_in_json_and_leaves_nothing_on_sigterm(tmp_path: Path) -> None:
    init()
    (tmp_path / "identities.yaml").write_text("entries: [{spiffe_id: spiffe://example.org/client/a}]")
    process = subprocess.Popen(
        [sys.executable, "-m", "nsm.identity", "serve"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NSM_LOG_FORMAT": "json"},
    )
    assert process.stdout is not None
    with process, process.stdout:
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "ready":
                break
        assert (tmp_path / "s" / "a.sock").is_socket()
        process.send_signal(signal.SIGTERM)
        events += [json.loads(line) for line in process.stdout]
        assert process.wait(timeout=30) == 0
    assert [event["event"] for event in events] == ["entry.added", "ready", "stopped"]
    assert events[1] == events[1] | {"trust_domain": "example.org", "entries": 1, "daemon": "nsm-identity"}
    assert list((tmp_path / "s").iterdir()) == []


@contextmanager
def serving() -> Iterator[tuple["subprocess.Popen[str]", Callable[[str], dict[str, Any]]]]:
    """``nsm-identity serve`` in a process of its own, and ``until(event)``: its next such event."""
    process = subprocess.Popen(
        [sys.executable, "-m", "nsm.identity", "serve"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NSM_LOG_FORMAT": "json"},
    )
    out = process.stdout
    assert out is not None

    def until(event: str) -> dict[str, Any]:
        for line in out:
            found: dict[str, Any] = json.loads(line)
            if found["event"] == event:
                return found
        raise AssertionError(f"it ended with status {process.wait()} before {event!r}")

    with process, out:
        try:
            until("ready")
            yield process, until
        finally:
            process.terminate()
            assert "Traceback" not in out.read()


def test_sighup_has_the_files_read_again(tmp_path: Path) -> None:
    """Behind a symbolic link, where inotify sees no change."""
    init()
    real = tmp_path / "elsewhere" / "identities.yaml"
    real.parent.mkdir()
    (tmp_path / "identities.yaml").symlink_to(real)
    real.write_text("entries: [{spiffe_id: spiffe://example.org/client/a}]")
    with serving() as (process, until):
        real.write_text("entries: [{spiffe_id: spiffe://example.org/client/b}]")
        process.send_signal(signal.SIGHUP)
        until("reloaded")
        assert {file.name for file in (tmp_path / "s").glob("*.sock")} == {"b.sock"}
        real.write_text("entries: [{spiffe_id: nonsense}]")
        process.send_signal(signal.SIGHUP)
        refused = until("reload.refused")
        assert "identities.yaml" in refused["reason"]
        assert "nonsense" in refused["reason"]
        assert (tmp_path / "s" / "b.sock").is_socket()
        process.send_signal(signal.SIGTERM)
        until("stopped")
        assert process.wait(timeout=30) == 0
    assert list((tmp_path / "s").iterdir()) == []
