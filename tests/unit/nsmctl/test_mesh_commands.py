"""What ``nsmctl`` says of a mesh it cannot ask; what it can ask is in tests/interop/test_nsmctl.py."""

from pathlib import Path

import pytest

from nsmctl import inspect
from nsmctl.__main__ import app
from nsmctl.commands import options
from nsmctl.errors import LabError
from nsmctl.mesh import at


def test_a_mesh_that_gives_no_identity_is_named_with_the_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(inspect, "PATIENCE_S", 0.2)
    socket = f"unix://{tmp_path}/none.sock"
    with pytest.raises(LabError, match=f"no identity from {socket}"):
        inspect.services(at("tcp://127.0.0.1:1", "", socket, "operator"))


def test_a_url_wins_over_the_lab() -> None:
    mesh = options.mesh("no-such-lab", "", "unix:///m.sock", "unix:///w.sock")
    assert (mesh.registry, mesh.managers) == ("unix:///m.sock", {"unix:///m.sock": "unix:///m.sock"})
    assert mesh.settings.identity_endpoint == "unix:///w.sock"
    both = options.mesh("no-such-lab", "tcp://r:1", "unix:///m.sock", "")
    assert (both.registry, list(both.managers)) == ("tcp://r:1", ["unix:///m.sock"])
    with pytest.raises(LabError, match="no lab 'no-such-lab' is up"):
        options.mesh("no-such-lab", "", "", "")


def test_the_environment_names_the_mesh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(inspect, "PATIENCE_S", 0.2)
    monkeypatch.setenv("NSM_CONNECT_TO", "unix:///m.sock")
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{tmp_path}/none.sock")
    with pytest.raises(LabError, match="no identity from"):
        app(["get", "services"], standalone_mode=False)
