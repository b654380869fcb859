"""The configuration as Go's envconfig would read it, and the messages a person gets for mistakes."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import Field

from nsm.model.context import DnsConfig
from nsm.service import values
from nsm.service.config import (
    ConfigError,
    DnsConfigs,
    Duration,
    GoBool,
    ListenUrls,
    NsmSettings,
    PrefixGroups,
    Target,
    TextList,
    TextMap,
    load,
    load_settings,
    unprefixed,
    variable,
)


class Example(NsmSettings):
    """One field of each kind."""

    name: str = "example"
    listen_on: ListenUrls = ("unix:///run/example.sock",)
    registry_url: Target = "tcp://localhost:5001"
    labels: TextMap = Field(default_factory=lambda: {"p2p": "true"})
    service_names: TextList = ("icmp-responder",)
    dns_configs: DnsConfigs = ()
    cidr_prefix: PrefixGroups = ((ip_network("169.254.0.0/16"),),)
    idle_timeout: Duration = 0.0
    register_service: GoBool = True
    vxlan_port: int = 0
    node_name: str = Field(default="", validation_alias=unprefixed("NODE_NAME"))


@pytest.fixture(autouse=True)
def only_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NSM_") or name in {"NODE_NAME", "SPIFFE_ENDPOINT_SOCKET"}:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("200ms", 0.2),
        ("1.5h", 5400.0),
        ("0", 0.0),
        ("1h1m1s1ms1us1ns", 3661.001001001),
        ("-2s", -2.0),
        (".5s", 0.5),
        ("1µs", 1e-6),
    ],
)
def test_a_go_duration_becomes_seconds(text: str, seconds: float) -> None:
    assert values.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "s", "1d", "1 s", "1s ", "--1s", "1s,", "0x1s", "٣s", "."])
def test_what_go_would_not_read_as_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration like"):
        values.duration(text)


@pytest.mark.parametrize("text", ["0s", "-1s"])
def test_a_positive_duration_is_above_zero(text: str) -> None:
    with pytest.raises(ValueError, match="above 0s"):
        values.positive_duration(text)


def test_booleans_are_those_of_go() -> None:
    assert [values.boolean(text) for text in ("1", "t", "T", "TRUE", "true", "True")] == [True] * 6
    assert [values.boolean(text) for text in ("0", "f", "F", "FALSE", "false", "False")] == [False] * 6
    for text in ("", "yes", "on", "tRUE"):
        with pytest.raises(ValueError, match="expected true or false"):
            values.boolean(text)


def test_groups_of_prefixes_keep_their_order_and_a_bare_prefix_is_its_own_group() -> None:
    assert values.prefix_groups("[10.0.0.0/24, fd00::/64],[10.1.0.7/24],10.2.0.0/24") == (
        (ip_network("10.0.0.0/24"), ip_network("fd00::/64")),
        (ip_network("10.1.0.0/24"),),
        (ip_network("10.2.0.0/24"),),
    )
    assert values.prefix_groups("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "[10.0.0.0/24",
        "10.0.0.0/24]",
        "[[10.0.0.0/24]]",
        "[]",
        "10.0.0.0/24,",
        ",",
        "10.0.0.1",
        "x/24",
        "[a],b",
    ],
)
def test_malformed_groups_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        values.prefix_groups(text)


@pytest.mark.parametrize(
    "url", ["unix://relative", "unix://", "tcp://host", "host", "tcp://h:99999", "http://h:1/"]
)
def test_a_target_that_cannot_be_dialled_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="expected unix:///path"):
        values.target(url)


@pytest.mark.parametrize(
    "url", ["", "unix:///run/nsm.sock", "tcp://127.0.0.1:5001", "registry:5002", "tcp://[::1]:5"]
)
def test_targets_of_every_form_are_taken_as_they_are(url: str) -> None:
    assert values.target(url) == url


def test_defaults_hold_when_no_variable_is_set() -> None:
    settings = load(Example)
    assert settings.listen_on == ("unix:///run/example.sock",)
    assert settings.labels == {"p2p": "true"}
    assert settings.max_token_lifetime == 600.0
    assert settings.request_timeout == 15.0


def test_every_kind_of_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "NSM_NAME": "nse-1",
        "NSM_LISTEN_ON": "unix:///a.sock,tcp://:5001",
        "NSM_LABELS": "app:web,url:http://x",
        "NSM_SERVICE_NAMES": "a, b",
        "NSM_DNS_CONFIGS": '[{"dns_server_ips": ["10.0.0.1"], "search_domains": ["x.org"]}]',
        "NSM_IDLE_TIMEOUT": "1h30m",
        "NSM_REGISTER_SERVICE": "F",
        "NSM_LOG_LEVEL": "warning",
        "NSM_VXLAN_PORT": "4790",
        "NODE_NAME": "node-1",
        "SPIFFE_ENDPOINT_SOCKET": "unix:///run/spire/api.sock",
    }.items():
        monkeypatch.setenv(name, text)
    settings = load(Example)
    assert settings.name == "nse-1"
    assert settings.listen_on == ("unix:///a.sock", "tcp://:5001")
    assert settings.labels == {"app": "web", "url": "http://x"}
    assert settings.service_names == ("a", "b")
    assert settings.dns_configs == (DnsConfig(("10.0.0.1",), ("x.org",)),)
    assert settings.idle_timeout == 5400.0
    assert settings.register_service is False
    assert settings.log_level == "WARN"
    assert settings.vxlan_port == 4790
    assert settings.node_name == "node-1"
    assert settings.identity_endpoint == "unix:///run/spire/api.sock"


def test_a_variable_that_is_set_but_empty_is_empty_and_not_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NSM_LISTEN_ON", "NSM_REGISTRY_URL", "NSM_LABELS", "NSM_SERVICE_NAMES", "NSM_CIDR_PREFIX"):
        monkeypatch.setenv(name, "")
    settings = load(Example)
    assert (settings.listen_on, settings.registry_url, settings.labels) == ((), "", {})
    assert (settings.service_names, settings.cidr_prefix) == ((), ())


def test_all_mistakes_are_named_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSM_IDLE_TIMEOUT", "soon")
    monkeypatch.setenv("NSM_REGISTER_SERVICE", "")
    monkeypatch.setenv("NSM_VXLAN_PORT", "many")
    monkeypatch.setenv("NSM_DNS_CONFIGS", "{")
    with pytest.raises(ConfigError) as caught:
        load(Example)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "NSM_IDLE_TIMEOUT: expected a duration like 15s, 200ms or 1h30m, got 'soon'" in lines
    assert "NSM_REGISTER_SERVICE: expected true or false (also 1, t, 0, f), got ''" in lines
    assert any(
        line.startswith("NSM_VXLAN_PORT: expected a valid integer") and "'many'" in line for line in lines
    )
    assert any(line.startswith("NSM_DNS_CONFIGS: expected a JSON list") for line in lines)


def test_a_missing_required_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="NSM_NAME: expected a value, got none"):
        load(NsmSettings)


def test_the_file_gives_values_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "example.yaml"
    file.write_text(
        "name: from-file\nlisten_on: [unix:///f.sock]\nlabels: {a: 1, b: true}\nidle_timeout: 2\n"
        "cidr_prefix: [[10.0.0.0/24], fd00::/64]\nnode_name: n\nspiffe_endpoint_socket: unix:///s\n"
    )
    monkeypatch.setenv("NSM_NAME", "from-env")
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///env")
    settings = load(Example, file)
    assert settings.name == "from-env"
    assert settings.listen_on == ("unix:///f.sock",)
    assert settings.labels == {"a": "1", "b": "true"}
    assert settings.idle_timeout == 2.0
    assert settings.cidr_prefix == ((ip_network("10.0.0.0/24"),), (ip_network("fd00::/64"),))
    assert settings.node_name == "n"
    assert settings.spiffe_endpoint_socket == "unix:///env"


def test_unknown_names_and_bad_values_of_the_file_are_named_together(tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    file.write_text("lisen_on: []\nidle_timeout: soon\n")
    with pytest.raises(ConfigError) as caught:
        load(Example, file)
    assert "got 'lisen_on'" in str(caught.value)
    assert "NSM_IDLE_TIMEOUT" in str(caught.value)


@pytest.mark.parametrize("content", ["- a\n", "{", "\xff"])
def test_a_file_that_is_no_mapping_is_refused_with_its_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "example.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"example\.yaml: expected"):
        load(Example, file)


def test_main_prints_every_mistake_and_leaves_with_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NSM_IDLE_TIMEOUT", "x")
    with pytest.raises(SystemExit) as caught:
        load_settings(Example, [])
    assert caught.value.code == 2
    assert "NSM_IDLE_TIMEOUT: expected a duration" in capsys.readouterr().err


def test_help_lists_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_settings(Example, ["--help"])
    shown = capsys.readouterr().out
    for field in Example.model_fields:
        assert variable(Example, field) in shown


def test_without_a_workload_api_the_embedded_service_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSM_NAME", "nsc-1")
    assert load(Example).identity_endpoint == "unix:///run/nsm/identity/nsc-1.sock"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(Example).name = "other"


@pytest.mark.parametrize(("lifetime", "timeout"), [(600.0, 15.0), (45.0, 15.0), (9.0, 3.0)])
def test_a_call_is_over_long_before_its_token(lifetime: float, timeout: float) -> None:
    assert Example(max_token_lifetime=f"{lifetime}s").call_timeout == timeout  # type: ignore[arg-type]
