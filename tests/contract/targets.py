"""Where the VPPs of the contract suite come from."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.profile import find_vpp
from nsm.model.errors import NsmError
from tests.fakes.fake_vpp.server import FakeVpp

_API_DIRS = ("/usr/local/share/vpp/api", "/usr/share/vpp/api")


@dataclass
class Target:
    """``fake`` is set where the VPP is none."""

    path: str
    fake: FakeVpp | None = None


def vpp_binary() -> str:
    """The installed VPP, or a skip that says what is missing."""
    try:
        binary = find_vpp()
    except NsmError as error:
        pytest.skip(f"NO REAL VPP: {error.message}")
    if os.geteuid() != 0:
        pytest.skip("NO REAL VPP: it needs root")
    return binary


def _candidates() -> tuple[str, ...]:
    """Beside the binary that is in use, then where packages put them."""
    try:
        return (str(Path(find_vpp()).parents[1] / "share/vpp/api"), *_API_DIRS)
    except NsmError:
        return _API_DIRS


def api_folder() -> str:
    """The folder of VPP's API files, or a skip that says what is missing."""
    folder = os.environ.get("VPP_API_DIR") or next((d for d in _candidates() if Path(d).is_dir()), "")
    if not folder:
        pytest.skip("NO API DEFINITIONS: install VPP or name the folder of its *.api.json in VPP_API_DIR")
    return folder
