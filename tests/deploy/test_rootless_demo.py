"""``nsmctl demo`` for who is not root: in namespaces of his own, or with the reason why not."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from nsmctl.errors import LabError
from nsmctl.lab import dataplanes, rootless

ROOT = Path(__file__).parents[2]
ORDINARY = ("unshare", "-U", "--map-user=1000", "--map-group=1000")
"""Somebody who is not root (uid 1000 there), but may read this interpreter wherever it lies."""
ROOT_OF_A_USER_NAMESPACE = ("unshare", "-Urnm")


def has_namespaces() -> bool:
    done = subprocess.run([*ORDINARY, "unshare", "-Urnm", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.linux
@pytest.mark.minutes
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "user", [ORDINARY, ROOT_OF_A_USER_NAMESPACE], ids=["not root", "root of a user namespace"]
)
def test_both_payloads_in_one_run(user: tuple[str, ...]) -> None:
    """With the PATH that Debian gives a user: without ``sbin``."""
    if not has_namespaces():
        pytest.skip(f"NO USER NAMESPACES: {rootless.remedy()}")
    before = {*Path("/run").iterdir()}
    done = subprocess.run(
        [*user, sys.executable, "-m", "nsmctl", "demo", "--seconds", "3", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert (shown["problems"], shown["dataplane"]) == ([], "linux")
    assert [outcome["payload"] for outcome in shown["outcomes"]] == ["IP", "ETHERNET"]
    assert not [path for path in {*Path("/run").iterdir()} - before if path.name.startswith("nsm-demo")]


def test_root_of_a_user_namespace_is_told_from_the_machines() -> None:
    if not has_namespaces():
        pytest.skip(f"NO USER NAMESPACES: {rootless.remedy()}")
    code = "from nsmctl.lab import rootless; print(rootless.is_root())"
    words = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for prefix in (ORDINARY, ROOT_OF_A_USER_NAMESPACE):
        assert subprocess.check_output([*prefix, *words], env=environment, text=True) == "False\n"


def test_vpp_is_not_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rootless.INSIDE, "1")
    with pytest.raises(LabError, match="VPP needs the machine's root") as refused:
        dataplanes.choose("vpp")
    assert "--dataplane linux" in refused.value.hint
    assert dataplanes.choose("auto").name == "linux"
    assert "not the machine's root" in dataplanes.choose("auto").reason


def test_what_outlives_the_command_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="nsmctl lab up needs root"):
        rootless.require_root("lab up")


def test_without_namespaces_it_says_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ``unshare`` that the kernel refuses."""
    refusing = tmp_path / "unshare"
    refusing.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    expected = "could not enter a user namespace: unshare failed: Operation not permitted"
    with pytest.raises(LabError, match=expected) as refused:
        rootless.enter()
    assert "run it as root" in refused.value.hint


@pytest.mark.parametrize("wrapped", [(), ("unshare", "-Ur")], ids=["not root", "root of a user namespace"])
def test_missing_packages_are_named_and_nothing_is_installed(wrapped: tuple[str, ...]) -> None:
    if os.geteuid() != 0 or (wrapped and not has_namespaces()):
        pytest.skip("NO ROOT: to become another user takes it")
    somebody = [shutil.which(word) or word for word in ("setpriv", "bash", *wrapped[:1])]
    words = [somebody[0], "--reuid=65534", "--regid=65534", "--clear-groups"]
    words += [*somebody[2:], *wrapped[1:], somebody[1], "-s"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(
            0o755
        )  # a PATH with apt-get, here one that would succeed, and with nothing that is wanted
        Path(folder, "apt-get").symlink_to("/bin/true")
        done = subprocess.run(
            words,
            input=(ROOT / "scripts/system-packages").read_text(),
            env={"PATH": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "sudo apt-get install -y --no-install-recommends " in done.stderr
    assert "iperf3" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("name", "closed", "opened"),
    [
        ("kernel/unprivileged_userns_clone", 0, 1),
        ("user/max_user_namespaces", 0, 10000),
        ("kernel/apparmor_restrict_unprivileged_userns", 1, 0),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named(
    tmp_path: Path, name: str, closed: int, opened: int
) -> None:
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text(f"{closed}\n")
    assert f"sysctl {name.replace('/', '.')}={opened}" in rootless.remedy(tmp_path)
    file.write_text(f"{opened}\n")
    assert "sysctl" not in rootless.remedy(tmp_path)


def test_a_tun_device_that_may_not_be_opened_leaves_ethernet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsmctl.lab.dataplanes.wireguard_here.refusal", lambda: "chmod 0666 /dev/net/tun")
    dataplanes.require_payload("linux", "ETHERNET")
    with pytest.raises(LabError, match="chmod 0666 /dev/net/tun") as refused:
        dataplanes.require_payload("linux", "IP")
    assert "--payload ethernet" in refused.value.hint
