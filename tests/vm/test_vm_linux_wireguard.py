"""The linux dataplane on a kernel that has WireGuard: its own tests between network namespaces, inside a guest."""

import re

import pytest

from tests.vm.guest import Guest

pytestmark = [pytest.mark.linux, pytest.mark.minutes, pytest.mark.timeout(3600)]

REMOTE = "tests/netns/test_linux_remote.py"
CASES = (
    "test_wireguard_between_two_nodes",
    "test_wireguard_outlives_the_agent_and_is_adopted",
    "test_the_same_peer_elsewhere_is_configured_in_place",
    "test_the_kernels_device_is_in_the_workload_and_its_socket_at_the_node",
    "test_the_kernels_tunnel_ends_with_the_workloads_namespace",
    "test_a_key_that_is_none_is_refused_and_leaves_nothing",
    "test_full_packets_cross_the_underlay_in_one_piece",
    "test_a_port_holds_one_wireguard_tunnel",
    "test_a_handshake_that_never_comes_is_said",
    "test_a_taken_name_leaves_no_process",
)
"""Packets both ways, adoption with no write, every refusal; each compares the namespaces before and after."""


def test_the_kernels_wireguard_carries_the_tunnels_and_leaves_nothing(machine: Guest) -> None:
    done = machine.pytest(*(f"{REMOTE}::{case}[kernel]" for case in CASES))
    assert done.code == 0, f"on {machine.release}:\n{done.out[-20000:]}"
    passed = re.search(r"(\d+) passed", done.out)
    assert passed is not None
    assert int(passed[1]) == len(CASES), done.out
    left = machine.run("sh", "-c", "ls /run/netns; ip -o link show type wireguard; ss -Hlun")
    assert (left.code, left.out.strip()) == (0, "")  # no namespace, no device, no socket
