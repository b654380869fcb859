"""What a client's list of services may look like, and what each mistake is called."""

from pathlib import Path

import pytest

from controlplane.client.service_url import ServiceUrl, parse_services
from controlplane.client.settings import ClientSettings
from nsm.service.config import ConfigError, load


def test_every_part_of_the_url_is_read() -> None:
    url = ServiceUrl.parse("kernel://Finance_Bridge@far.example/nsm-1?app=db&app=web&tier=")
    assert url == ServiceUrl("Finance_Bridge@far.example", "KERNEL", "nsm-1", {"app": "db", "tier": ""})


def test_the_interface_and_labels_may_be_missing() -> None:
    assert ServiceUrl.parse("kernel://icmp-responder") == ServiceUrl("icmp-responder")
    assert ServiceUrl.parse("kernel://icmp-responder/") == ServiceUrl("icmp-responder")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("icmp-responder", "with the mechanism kernel or noop"),
        ("memif://icmp-responder/nsm-1", "with the mechanism kernel or noop"),
        ("kernel:///nsm-1", "expected the name of a network service"),
        ("kernel://@domain/nsm-1", "expected the name of a network service"),
        ("kernel://service@/nsm-1", "expected the name of a network service"),
        ("kernel://service/nsm-1?color", "expected labels like"),
        ("kernel://service/name-of-16-bytes", "at most 15 bytes, got 'name-of-16-bytes' (16 bytes)"),
        ("kernel://service/%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9%C3%A9", "(16 bytes)"),
        ("kernel://service/a%20b", "without blanks"),
        ("kernel://[service/nsm-1", "expected kernel://service"),
    ],
)
def test_a_bad_url_says_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        ServiceUrl.parse(text)
    assert expected in str(caught.value)


def test_all_mistakes_of_a_list_are_told_together_with_names_used_twice() -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        parse_services(["memif://a/x", "kernel://a/nsm-1", "kernel://b/nsm-1", "kernel://c", "kernel://d"])
    assert "memif://a/x" in str(caught.value)
    assert "expected each interface name once, got 'nsm-1'" in str(caught.value)


def test_the_settings_name_the_variable_and_the_expectation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NSM_NETWORK_SERVICES", "kernel://a/much-too-long-name")
    monkeypatch.setenv("NSM_NETNS", "a/b")
    with pytest.raises(ConfigError) as caught:
        load(ClientSettings)
    assert "NSM_NETWORK_SERVICES: expected an interface name of at most 15 bytes" in str(caught.value)
    assert "NSM_NETNS: expected the name of a network namespace" in str(caught.value)


def test_a_file_may_list_the_services(tmp_path: Path) -> None:
    file = tmp_path / "client.yaml"
    file.write_text("name: c1\nnetns: 17\nnetwork_services:\n  - kernel://a/nsm-1\n  - kernel://b/nsm-2\n")
    settings = load(ClientSettings, file)
    assert [url.service for url in settings.network_services] == ["a", "b"]
    assert settings.netns_file == Path("/proc/17/ns/net")
