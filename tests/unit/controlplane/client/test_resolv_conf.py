"""The workload's resolv.conf: ours while we run, as it was before afterwards."""

from pathlib import Path

import pytest

from controlplane.client import resolv_conf
from controlplane.client.resolv_conf import HEADER, ResolvConf, check_path, default_path, render
from nsm.model.context import DnsConfig

OURS = [DnsConfig(("10.0.0.1",), ("svc.example",))]


def test_our_servers_come_first_and_three_are_kept() -> None:
    former = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch home\noptions ndots:2\n# remark\n"
    text = render([DnsConfig(("10.0.0.1", "fd00::1"), ("a", "b")), DnsConfig(("10.0.0.1",), ("a",))], former)
    assert text == HEADER + (
        "nameserver 10.0.0.1\nnameserver fd00::1\nnameserver 192.0.2.1\nsearch a b home\noptions ndots:2\n"
    )


def test_what_a_peer_sends_cannot_write_lines_of_its_own() -> None:
    text = render(
        [DnsConfig(("10.0.0.1\nnameserver 6.6.6.6", "no-address"), ("a\noptions rotate", "b c", ""))]
    )
    assert text == HEADER + "\n"


def test_the_former_content_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    inode = path.stat().st_ino
    conf = ResolvConf(path)
    conf.apply(OURS)
    assert path.read_text() == HEADER + "nameserver 10.0.0.1\nnameserver 192.0.2.1\nsearch svc.example\n"
    assert path.stat().st_ino == inode  # bind mounts of running programs see it
    conf.restore()
    assert path.read_text() == "nameserver 192.0.2.1\n"
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_file_that_was_not_there_goes_with_its_directories(tmp_path: Path) -> None:
    conf = ResolvConf(tmp_path / "netns" / "blue" / "resolv.conf")
    conf.apply(OURS)
    assert conf.path.exists()
    conf.apply([])
    assert list(tmp_path.iterdir()) == []


def test_a_crashed_clients_file_is_not_taken_for_the_former_content(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    ResolvConf(path).apply(OURS)  # and never restored
    again = ResolvConf(path)
    again.apply([DnsConfig(("10.0.0.2",))])
    assert "10.0.0.1" not in path.read_text()
    again.restore()
    assert path.read_text() == "nameserver 192.0.2.1\n"


def test_the_hosts_file_is_refused_unless_the_mounts_are_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolv_conf, "_own_mounts", lambda: False)
    with pytest.raises(ValueError, match=r"expected a resolv.conf of the workload"):
        check_path(Path("/etc/../etc/resolv.conf"))
    monkeypatch.setattr(resolv_conf, "_own_mounts", lambda: True)
    check_path(Path("/etc/resolv.conf"))


def test_only_a_named_namespace_has_a_file_by_default() -> None:
    assert default_path("blue") == Path("/etc/netns/blue/resolv.conf")
    assert [default_path(text) for text in ("", "17", "/run/netns/blue")] == [None, None, None]


def test_directories_a_crashed_client_made_go_too(tmp_path: Path) -> None:
    path = tmp_path / "netns" / "blue" / "resolv.conf"
    ResolvConf(path).apply(OURS)  # and never restored
    again = ResolvConf(path)
    again.apply(OURS)
    again.restore()
    assert list(tmp_path.iterdir()) == []
    ResolvConf(path).apply(OURS)
    ResolvConf(path).apply([])  # a successor without any DNS
    assert list(tmp_path.iterdir()) == []
