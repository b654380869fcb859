"""Names of namespaces are shared with ``ip netns``, whoever comes first."""

import sys

import pytest

from tests.netns.linux_node import run

pytestmark = [pytest.mark.linux, pytest.mark.netns]

BESIDE_IP_NETNS = """
import subprocess
from nsmctl.lab import namespaces
from nsmctl.lab.kernel import mount

mount("tmpfs", "/run", "tmpfs", 0)  # as after a boot
namespaces.create("ours")
subprocess.run(["ip", "netns", "add", "theirs"], check=True)
namespaces.create("later")
assert namespaces.names() == ("later", "ours", "theirs")
for name in namespaces.names():
    namespaces.delete(name)
assert namespaces.names() == ()
"""


def test_ours_go_although_ip_netns_made_its_first_one_after_them() -> None:
    run("unshare", "--mount", sys.executable, "-c", BESIDE_IP_NETNS)
