"""Every setting of the Go forwarder is read here or named as ignored, and docs/drop-in.md says which."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forwarder_vpp.ignored import IGNORED, name_ignored
from forwarder_vpp.settings import ForwarderSettings
from nsm.service.config import ConfigError, load, variable

DOCUMENT = Path(__file__).parents[3] / "docs" / "drop-in.md"
HONOURED = {
    "NSM_NAME": ("name", "f-1"),
    "NSM_LABELS": ("labels", "a:b"),
    "NSM_NSNAME": ("nsname", "other"),
    "NSM_CONNECT_TO": ("connect_to", "unix:///m.sock"),
    "NSM_LISTEN_ON": ("listen_on", "unix:///f.sock"),
    "NSM_MAX_TOKEN_LIFETIME": ("max_token_lifetime", "5m"),
    "NSM_REGISTRY_CLIENT_POLICIES": ("registry_client_policies", "etc/nsm/opa/common/.*.rego"),
    "NSM_LOG_LEVEL": ("log_level", "DEBUG"),
    "NSM_DIAL_TIMEOUT": ("dial_timeout", "2s"),
    "NSM_TUNNEL_IP": ("tunnel_ip", "10.0.0.9"),
    "NSM_VXLAN_PORT": ("vxlan_port", "4790"),
    "NSM_VPP_API_SOCKET": ("vpp_api_socket", "/run/vpp/api.sock"),
    "NSM_VPP_INIT": ("vpp_init", "NONE"),
    "NSM_MECHANISM_PRIORITY": ("mechanism_priority", "WIREGUARD"),
}
"""Field and a value that is not the default, by variable of the Go forwarder."""


def table() -> Mapping[str, str]:
    """What the document says of each setting: the first word of the second column."""
    rows = re.findall(r"^\| `(NSM_\w+)` \| (\w+)", DOCUMENT.read_text(), re.MULTILINE)
    assert len(dict(rows)) == len(rows), "a setting stands there twice"
    return dict(rows)


def test_the_document_says_of_each_setting_what_is_so() -> None:
    expected = dict.fromkeys(HONOURED, "honoured") | dict.fromkeys(IGNORED, "ignored")
    assert table() == expected


@pytest.mark.parametrize("name", HONOURED)
def test_what_is_honoured_is_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    field, value = HONOURED[name]
    default = getattr(load(ForwarderSettings), field)
    monkeypatch.setenv(name, value)
    assert getattr(load(ForwarderSettings), field) != default


def test_an_uplink_over_af_xdp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSM_VPP_INIT", "AF_XDP")
    with pytest.raises(ConfigError, match="NSM_VPP_INIT: expected 'AF_PACKET' or 'NONE', got 'AF_XDP'"):
        load(ForwarderSettings)


def test_what_is_ignored_is_read_by_no_field() -> None:
    read = {variable(ForwarderSettings, field) for field in ForwarderSettings.model_fields}
    assert not read & IGNORED.keys()


def test_each_ignored_setting_that_is_set_is_named_once_with_the_reason() -> None:
    environment = {"NSM_VFIO_PATH": "", "NSM_PPROF_ENABLED": "false", "NSM_NAME": "f-1", "HOME": "/"}
    with capture_logs() as logs:
        name_ignored(environment)
    assert [(each["event"], each["variable"]) for each in logs] == [
        ("setting.ignored", "NSM_PPROF_ENABLED"),
        ("setting.ignored", "NSM_VFIO_PATH"),
    ]
    assert [each["why"] for each in logs] == [IGNORED["NSM_PPROF_ENABLED"], IGNORED["NSM_VFIO_PATH"]]
