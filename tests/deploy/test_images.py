"""What ``Dockerfile.vpp`` promises, and what podman is told of it."""

import json
import re
import stat
from pathlib import Path

import pytest

from deploy.containers import image
from deploy.containers.podman import Order
from forwarder_vpp.dataplane.priority import NICE

TEXT = image.DOCKERFILE.read_text()


def stage(name: str) -> str:
    return re.split(rf"^FROM \S+ AS {name}$", TEXT, flags=re.MULTILINE)[1].partition("\nFROM ")[0]


def test_the_base_is_public_unless_another_is_named() -> None:
    assert image.default_base() == "docker.io/library/debian:12-slim"
    assert set(re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE)) == {"${NSM_BASE_IMAGE}"}


@pytest.mark.parametrize("name", ["agent", "vpp"])
def test_entry_point_and_health_check_need_no_shell(name: str) -> None:
    for word in ("ENTRYPOINT", "CMD"):
        found = re.findall(rf"^\s*{word} (.*)$", stage(name), re.MULTILINE)
        assert len(found) == 1
        program, *_ = json.loads(found[0])
        assert program.startswith("/")
        assert program.rpartition("/")[2] not in {"sh", "bash", "env"}


def test_the_release_of_vpp_is_pinned() -> None:
    assert re.search(r"^ARG VPP_RELEASE=26\.06$", stage("vpp"), re.MULTILINE)
    assert "Pin: version %s-release" in stage("vpp")


def test_packages_come_with_their_hashes() -> None:
    installs = re.findall(r"pip install (.*?)(?:\\$|\n)", stage("build"), re.MULTILINE)
    assert len(installs) == 3
    for words in installs:
        assert "--require-hashes" in words or "--no-deps --no-build-isolation" in words


def test_capabilities_are_those_of_the_labels() -> None:
    assert image.capabilities("agent") == ("NET_ADMIN", "NET_BROADCAST", "SYS_ADMIN", "SYS_PTRACE")
    assert image.capabilities("vpp") == ("NET_RAW", "IPC_LOCK")


def test_the_shares_of_vpp_are_the_weight_of_its_nice_value() -> None:
    """sched_prio_to_weight (kernel/sched/core.c): 1024 at nice 0, a quarter more for each step."""
    assert NICE == -10
    assert image.labels("vpp")["cpu-shares"] == "9548"


def test_a_container_gets_what_was_ordered_and_nothing_else() -> None:
    order = Order("c", "img", ("/bin/prog", "-x"), "none", ("NET_RAW",), {"A": "b"}, ["/a:/a:ro"])
    words = order.arguments()
    assert words[words.index("--cap-drop") + 1] == "all"
    assert [words[i + 1] for i, word in enumerate(words) if word == "--cap-add"] == ["NET_RAW"]
    assert words[-4:] == ["--entrypoint", "/bin/prog", "img", "-x"]
    assert "--privileged" not in words


def test_the_package_index_of_this_machine_stays_out_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.write_text("x")
    monkeypatch.setenv("PIP_CERT", str(certificates))
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:word@index.example/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", "/opt/wheels")
    words = image._pip_secrets(tmp_path)
    assert words[::2] == ["--secret"] * (len(words) // 2)
    assert not any("word@" in word for word in words)
    file = tmp_path / "pip.conf"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "index-url = https://user:word@index.example/simple\n" in file.read_text()
    assert "cert = /run/secrets/pip-cert\n" in file.read_text()
    assert "find-links" not in file.read_text()
