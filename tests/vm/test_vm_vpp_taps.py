"""The vpp dataplane on a kernel that has vhost-net: taps instead of veths, inside a guest."""

import re

import pytest

from tests.contract.targets import vpp_binary
from tests.vm.guest import Guest

pytestmark = [pytest.mark.vpp, pytest.mark.minutes, pytest.mark.timeout(3600)]

SUITES = {
    ("tests/netns/test_vpp_dataplane.py", ""): 7,
    ("tests/netns/test_vpp_packets.py", "tap"): 8,
}
"""Cases by file and selection: the life of the dataplane; packets, locally and through both tunnels."""


@pytest.fixture
def with_vhost(machine: Guest) -> Guest:
    vpp_binary()
    assert machine.run("modprobe", "vhost_net").code == 0
    return machine


@pytest.mark.parametrize(("file", "chosen"), SUITES, ids=["life", "packets"])
def test_workloads_get_taps(with_vhost: Guest, file: str, chosen: str) -> None:
    done = with_vhost.pytest(file, "-k", chosen)
    assert done.code == 0, f"on {with_vhost.release}:\n{done.out[-20000:]}"
    passed = re.search(r"(\d+) passed", done.out)
    assert passed is not None
    assert int(passed[1]) == SUITES[file, chosen], done.out
