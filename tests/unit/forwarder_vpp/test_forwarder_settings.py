from pathlib import Path

import pytest

from forwarder_vpp.app import make_dataplane, registered
from forwarder_vpp.choice import choose, external_vpp
from forwarder_vpp.dataplane.linux.dataplane import LinuxDataplane
from forwarder_vpp.dataplane.vpp.dataplane import VppDataplane
from forwarder_vpp.settings import ForwarderSettings
from nsm.service.config import ConfigError, load

NOWHERE = "/nonexistent/vpp-api.sock"


def settings(monkeypatch: pytest.MonkeyPatch, **values: str) -> ForwarderSettings:
    for name, value in values.items():
        monkeypatch.setenv(f"NSM_{name.upper()}", value)
    return load(ForwarderSettings)


def test_upstreams_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert (found.name, found.nsname, dict(found.labels)) == ("forwarder", "forwarder", {"p2p": "true"})
    assert found.connect_to == "unix:///connect.to.socket"
    assert found.listen_on == ("unix:///listen.on.socket",)
    assert found.dial_timeout == 0.75
    assert not found.expedited


def test_values_are_read_under_upstreams_names(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch, labels="a:b", mechanism_priority="wireguard,kernel", vxlan_port="4790", dataplane="linux"
    )
    assert dict(found.labels) == {"a": "b"}
    assert found.mechanism_priority == ("WIREGUARD", "KERNEL")
    endpoint = registered(found, "unix:///f.sock")
    assert endpoint.network_service_labels == {"forwarder": {"a": "b"}}


@pytest.mark.parametrize(
    ("name", "value"), [("nsname", "a_b"), ("dataplane", "magic"), ("vxlan_port", "70000")]
)
def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"NSM_{name.upper()}"):
        settings(monkeypatch, **{name: value})


def test_auto_says_what_it_takes_and_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root, user = tmp_path / "root", tmp_path / "user"
    root.write_text("         0          0 4294967295\n")
    user.write_text("         0       1000          1\n")
    found = settings(monkeypatch, vpp_api_socket="")
    monkeypatch.setenv("VPP_BINARY", "/nonexistent/vpp")
    assert choose(found, root).dataplane == "linux"
    assert "VPP_BINARY" in choose(found, root).why
    monkeypatch.setenv("VPP_BINARY", "/bin/true")
    assert choose(found, root).dataplane == "vpp"
    assert choose(found, user).dataplane == "linux"


def test_a_vpp_that_was_named_is_taken_whether_it_is_there_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VPP_BINARY", "/nonexistent/vpp")
    named = settings(monkeypatch, vpp_api_socket=NOWHERE, tunnel_ip="192.0.2.1", state_dir=str(tmp_path))
    assert choose(named).dataplane == "vpp"
    assert f"NSM_VPP_API_SOCKET={NOWHERE}" in choose(named).why
    made = make_dataplane(named)
    assert isinstance(made, VppDataplane)
    assert made.process is None


def test_a_vpp_at_the_usual_place_is_taken_if_it_is_there(tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    found = ForwarderSettings.model_construct(_fields_set=set(), vpp_api_socket=str(socket))
    assert not external_vpp(found)
    socket.touch()
    assert external_vpp(found)


def test_the_dataplane_of_the_settings_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    common = {"tunnel_ip": "192.0.2.1", "state_dir": str(tmp_path), "vpp_api_socket": ""}
    assert isinstance(make_dataplane(settings(monkeypatch, dataplane="linux", **common)), LinuxDataplane)
    made = make_dataplane(settings(monkeypatch, dataplane="vpp", vxlan_port="4790", **common))
    assert isinstance(made, VppDataplane)
    assert made.options.ports[0] == (4790, 4790)
    assert not made.options.expedited
