"""A forwarder keeps its state below /run on most hosts: there too wireguard-go finds its folder."""

import shutil
import sys

import pytest

from tests.netns.linux_node import run

pytestmark = [
    pytest.mark.linux,
    pytest.mark.netns,
    pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="NO wireguard-go: install it"),
]

BELOW_RUN = """
import contextlib
from pathlib import Path
from forwarder_vpp.dataplane.linux.wireguard_go import WireguardGo
from nsmctl.lab.kernel import mount

mount("tmpfs", "/run", "tmpfs", 0)
processes = WireguardGo(Path("/run/nsm/wireguard"), "below-run")
try:
    with processes.lanes.taken() as lane:
        processes.start("nsmbelowrun", lane.tun, lambda: None)
    assert processes.socket_of("nsmbelowrun").exists()
finally:
    with contextlib.suppress(OSError):
        processes.end("nsmbelowrun")
    processes.close()
"""


def test_a_process_listens_in_a_folder_below_run() -> None:
    run("unshare", "--mount", "--net", sys.executable, "-c", BELOW_RUN)
