"""A WireGuard handshake that came to nothing, between two real VPPs."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.objects.wireguard_peer import WireguardPeer
from forwarder_vpp.dataplane.vpp.waiting import Waiting
from forwarder_vpp.desired.vpp import NodeFacts, connection_items
from nsm.model.mechanism import IP
from nsmctl.lab.namespaces import entered
from tests.contract.targets import vpp_binary
from tests.netns.test_vpp_packets import IPV4, intent, uplink, wireguard_pair, workload
from tests.netns.vpp_node import Node, inside, namespaces, node, ping, run

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

PLACES = {workload(number, number, IP).netns: f"vpt-w{number}" for number in (1, 2)}
NEAR_PORT, FAR_PORT, NOWHERE = 61901, 61902, 61903
INITIATION = 148  # bytes of the datagram
PATIENCE = 0.1
FACTS = NodeFacts()


@pytest.fixture
async def first(tmp_path: Path) -> AsyncIterator[Node]:
    """A node, and beside it the namespace of another one without VPP."""
    binary = vpp_binary()
    with namespaces("vpt-n1", "vpt-n2", *PLACES.values()):
        wire = ("ip", "link", "add", "eth0", "netns", "vpt-n1", "type", "veth")
        run(*wire, "peer", "name", "eth0", "netns", "vpt-n2")
        for number in (1, 2):
            inside(f"vpt-n{number}", "ip", "addr", "add", f"{IPV4.address(number)}/24", "dev", "eth0")
            inside(f"vpt-n{number}", "ip", "link", "set", "eth0", "up")
        async with node("vpt-n1", tmp_path / "n1", binary, PLACES) as found:
            await found.executor.create(uplink(1, IPV4, neighbour=2))
            yield found


async def initiation_lost() -> None:
    """Return when one has arrived where nobody answers it."""
    with entered(Path("/run/netns/vpt-n2")):
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.closing(listener):
        listener.setblocking(False)
        listener.bind((IPV4.address(2), FAR_PORT))
        async with asyncio.timeout(10):
            assert len(await asyncio.get_running_loop().sock_recv(listener, 2048)) == INITIATION


async def test_after_a_handshake_in_vain_vpp_begins_anew_and_packets_flow(
    first: Node, tmp_path: Path
) -> None:
    """The far side knows the wrong port of the near one, so it can but answer."""
    near_end, far_end = wireguard_pair(NEAR_PORT, FAR_PORT)
    far_end = replace(far_end, remote_port=NOWHERE)
    near = connection_items(intent(workload(1, 2, IP), near_end, IP), FACTS)
    far = connection_items(intent(far_end, workload(2, 1, IP), IP), FACTS)
    lost = asyncio.create_task(initiation_lost())
    await first.executor.create(near)
    await lost
    async with node("vpt-n2", tmp_path / "n2", vpp_binary(), PLACES) as second:
        await second.executor.create(uplink(2, IPV4, neighbour=1))
        await second.executor.create(far)
        before = first.session.counters.by_name["sw_interface_set_flags"]
        await established(first, next(each for each in near if isinstance(each, WireguardPeer)))
        assert first.session.counters.by_name["sw_interface_set_flags"] > before
        assert await asyncio.to_thread(ping, "vpt-w1", "10.9.0.2") == 5
        assert await asyncio.to_thread(ping, "vpt-w2", "10.9.0.1") == 5


async def established(node_: Node, peer: WireguardPeer) -> None:
    waiting = Waiting(node_.session, os.getpid())
    await waiting.subscribe(node_.session)
    known = node_.executor.handles.known
    index, number = known[peer.interface], known[peer.key]
    assert isinstance(index, int)
    assert isinstance(number, int)
    async with asyncio.timeout(15):
        await waiting.established(index, number, PATIENCE)
