"""The buffers of another process's UDP sockets."""

import socket
import subprocess
import sys

import pytest

from forwarder_vpp.dataplane.linux import udp_buffers

_SCRIPT = """
import socket, sys
kept = [socket.socket(family, kind) for family in (socket.AF_INET, socket.AF_INET6)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
print("open", flush=True)
sys.stdin.readline()
print(*(each.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) for each in kept), flush=True)
"""


def test_udp_sockets_of_a_child_are_widened_and_no_others() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        assert udp_buffers.widen(child.pid) == 2
        child.stdin.write("\n")
        child.stdin.flush()
        udp4, tcp4, udp6, tcp6 = map(int, child.stdout.readline().split())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert min(udp4, udp6) > usual
    assert max(tcp4, tcp6) < udp_buffers.SIZE


def test_a_process_that_is_gone_is_an_error() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(OSError, match="process"):
        udp_buffers.widen(child.pid)
