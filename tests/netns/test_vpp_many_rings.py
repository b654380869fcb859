"""VPP with more readable rings than epoll hands out at once: 26.06 alone would never answer again."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.messages.af_packet import MODE_ETHERNET, VERSION_2, AfPacketCreate
from forwarder_vpp.dataplane.vpp.messages.core import ControlPing
from forwarder_vpp.dataplane.vpp.messages.interface import ADMIN_UP, InterfaceFlags
from forwarder_vpp.dataplane.vpp.process import VppProcess
from forwarder_vpp.dataplane.vpp.session import VppSession
from nsmctl.lab.namespaces import entered
from tests.contract.targets import vpp_binary
from tests.netns.vpp_node import inside, namespaces, vpp_in

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

NETNS = "vpr-n1"
RINGS = 24
FRAME = b"\xff" * 6 + bytes.fromhex("020000000101 0800") + bytes(50)


@pytest.fixture
async def vpp(tmp_path: Path) -> AsyncIterator[tuple[VppProcess, VppSession]]:
    """One with ``RINGS`` links that nobody talks on."""
    with namespaces(NETNS):
        async with vpp_in(NETNS, tmp_path, vpp_binary()) as (process, session):
            for number in range(RINGS):
                pair = ("ip", "link", "add", f"in{number}", "type", "veth", "peer", "name", f"out{number}")
                inside(NETNS, *pair)
                for end in ("in", "out"):
                    inside(NETNS, "sysctl", "-qw", f"net.ipv6.conf.{end}{number}.disable_ipv6=1")
                    inside(NETNS, "ip", "link", "set", f"{end}{number}", "up")
                made = await session.call(
                    AfPacketCreate(
                        mode=MODE_ETHERNET,
                        hw_addr=bytes([2, 0, 0, 0, 0, number]),
                        use_random_hw_addr=False,
                        host_if_name=f"in{number}",
                        rx_frame_size=2048,
                        tx_frame_size=2048,
                        rx_frames_per_block=64,
                        tx_frames_per_block=64,
                        flags=VERSION_2,
                    )
                )
                await session.call(InterfaceFlags(made.sw_if_index, ADMIN_UP))
            yield process, session


def send_on_every_link() -> None:
    with entered(Path(f"/run/netns/{NETNS}")):
        for number in range(RINGS):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
                sender.bind((f"out{number}", 0))
                sender.send(FRAME)


async def test_it_answers_when_every_ring_holds_a_packet(vpp: tuple[VppProcess, VppSession]) -> None:
    process, session = vpp
    await session.call(ControlPing())
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(send_on_every_link)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await session.call(ControlPing())
