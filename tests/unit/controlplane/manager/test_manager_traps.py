"""Where an endpoint's socket can be handed over, and where it cannot."""

import socket
from pathlib import Path

import pytest

from controlplane.manager.registry import _receive_socket
from nsm.model.errors import Code, NsmError
from tests.fakes.hops import FakeCall, peer_of


async def test_a_socket_is_taken_from_callers_on_unix_only(tmp_path: Path) -> None:
    """Over TCP the path is one of another host, although something of that name may be here too."""
    path = tmp_path / "nse.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        with pytest.raises(NsmError, match="cannot be reached from here") as caught:
            await _receive_socket(f"unix://{path}", FakeCall(peer_of("nse", passes_fds=False)).call)
    assert caught.value.code is Code.FAILED_PRECONDITION
