"""Packets of real workloads through real VPPs: one node, and two nodes over VXLAN and WireGuard."""

import asyncio
import contextlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Item
from forwarder_vpp.dataplane.vpp.dataplane import VppOptions
from forwarder_vpp.dataplane.vpp.objects.wireguard_peer import WireguardPeer
from forwarder_vpp.dataplane.vpp.waiting import Waiting
from forwarder_vpp.desired.vpp import NodeFacts, UplinkFacts, connection_items, uplink_items
from nsm.model.context import Route
from nsm.model.mechanism import ETHERNET, IP
from tests.contract.targets import vpp_binary
from tests.netns.vpp_node import Node, inside, namespaces, node, ping, run
from tests.netns.wireguard_keys import public_key

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

MTU = 1400
STREAM = 8 << 20
FACTS = NodeFacts()
TAPS = NodeFacts(taps=True)
WORKLOADS = {NetnsId(0, 1, number): f"vpt-w{number}" for number in range(1, 7)}
PLACES = {name: place for place, name in WORKLOADS.items()}


def workload(number: int, peer: int, payload: str, name: str = "nsm-1") -> KernelEnd:
    wide = payload == ETHERNET
    return KernelEnd(
        netns=PLACES[f"vpt-w{number}"],
        interface=name,
        addresses=(
            f"10.9.0.{number}/{24 if wide else 32}",
            f"2001:db8::{number}/{64 if wide else 128}",
        ),
        routes=() if wide else (Route(f"10.9.0.{peer}/32"), Route(f"2001:db8::{peer}/128")),
    )


def intent(client: Any, endpoint: Any, payload: str, number: int = 1) -> Intent:
    return Intent(f"id{number}", f"nsm1-owner{number}", payload, MTU, client, endpoint)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Node]:
    binary = vpp_binary()
    with namespaces("vpt-n1", *WORKLOADS.values()):
        async with node("vpt-n1", tmp_path, binary, WORKLOADS) as found:
            yield found


LINKS = {"veth": FACTS} | ({"tap": TAPS} if Path("/dev/vhost-net").exists() else {})
"""How a workload may be linked to VPP on this kernel; one with vhost-net is that of the guest in ``tests/vm``."""


@pytest.fixture(params=list(LINKS.values()), ids=list(LINKS))
def facts(request: pytest.FixtureRequest) -> NodeFacts:
    """How a workload is linked to VPP."""
    found: NodeFacts = request.param
    return found


@dataclass(frozen=True)
class Wire:
    """The underlay's addresses."""

    prefix: str
    length: int

    def address(self, number: int) -> str:
        return f"{self.prefix}{number}"


IPV4 = Wire("10.254.0.", 24)
IPV6 = Wire("fd00:254::", 64)


@pytest.fixture(params=[IPV4])
def underlay(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.param
    return found


@pytest.fixture
async def two(tmp_path: Path, underlay: Wire) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes on one wire, each with its uplink in VPP."""
    binary = vpp_binary()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(namespaces("vpt-n1", "vpt-n2", *WORKLOADS.values()))
        wire = ("ip", "link", "add", "eth0", "netns", "vpt-n1", "type", "veth")
        run(*wire, "peer", "name", "eth0", "netns", "vpt-n2")
        nodes = []
        for number in (1, 2):
            netns = f"vpt-n{number}"
            address = f"{underlay.address(number)}/{underlay.length}"
            silent = ("nodad",) if ":" in address else ()
            inside(netns, "ip", "addr", "add", address, "dev", "eth0", *silent)
            inside(netns, "ip", "link", "set", "eth0", "up")
            nodes.append(await stack.enter_async_context(node(netns, tmp_path / netns, binary, WORKLOADS)))
        for number, each in enumerate(nodes, start=1):
            await each.executor.create(uplink(number, underlay, neighbour=3 - number))
        yield nodes[0], nodes[1]


def mac_of(netns: str, link: str) -> str:
    return inside(netns, "cat", f"/sys/class/net/{link}/address").strip()


def uplink(number: int, underlay: Wire, *, neighbour: int) -> tuple[Item, ...]:
    facts = UplinkFacts(
        link="eth0",
        mac=mac_of(f"vpt-n{number}", "eth0"),
        mtu=1500,
        tunnel_ip=underlay.address(number),
        addresses=(f"{underlay.address(number)}/{underlay.length}",),
        neighbours=((underlay.address(neighbour), mac_of(f"vpt-n{neighbour}", "eth0")),),
        ports=VppOptions().ports,
    )
    return uplink_items(facts)


async def both_families(first: str, number: int) -> tuple[int, int]:
    return (
        await asyncio.to_thread(ping, first, f"10.9.0.{number}"),
        await asyncio.to_thread(ping, first, f"2001:db8::{number}"),
    )


async def streams_arrive() -> None:
    """TCP both ways and in both families: large segments, checksums left to be made."""
    for server, client, address in (("vpt-w2", "vpt-w1", "10.9.0.2"), ("vpt-w1", "vpt-w2", "2001:db8::1")):
        assert await asyncio.to_thread(tcp_bytes, server, client, address) == STREAM


@pytest.mark.parametrize("payload", [IP, ETHERNET])
async def test_two_workloads_of_one_node_reach_each_other_and_leave_nothing(
    one: Node, payload: str, facts: NodeFacts
) -> None:
    before = await one.census()
    items = connection_items(intent(workload(1, 2, payload), workload(2, 1, payload), payload), facts)
    await one.executor.create(items)
    assert await both_families("vpt-w1", 2) == (5, 5)
    assert await asyncio.to_thread(ping, "vpt-w2", "10.9.0.1", size=MTU - 28) == 5
    await streams_arrive()
    for kind, descriptor in one.executor.descriptors.items():
        wanted = {key: item for key, item in one.executor.items.items() if key.kind == kind}
        if not kind.startswith("vpp_") or kind == "vpp_udp_port":
            continue
        assert {each.key: each.item for each in await descriptor.dump(wanted)} == wanted
    await one.executor.delete(items)
    assert await one.census() == before


async def test_the_node_does_not_answer_what_a_workload_sends_it(one: Node) -> None:
    """The kernel sees each packet on its end of the veth, but none is addressed to it."""
    items = connection_items(intent(workload(1, 2, IP), workload(2, 1, IP), IP), FACTS)
    await one.executor.create(items)
    inside("vpt-n1", "ip", "addr", "add", "10.9.0.77/32", "dev", "lo")
    inside("vpt-w1", "ip", "route", "add", "10.9.0.77/32", "dev", "nsm-1")
    mac = next(
        each.split()[-2] for each in inside("vpt-w1", "ip", "neigh").splitlines() if "10.9.0.2 " in each
    )
    inside("vpt-w1", "ip", "neigh", "add", "10.9.0.77", "lladdr", mac, "dev", "nsm-1", "nud", "permanent")
    assert await asyncio.to_thread(ping, "vpt-w1", "10.9.0.77", count=2) == 0
    await one.executor.delete(items)


@pytest.mark.parametrize("underlay", [IPV4, IPV6], indirect=True)
@pytest.mark.parametrize("ports", [(4789, 4789), (4789, 61899)])
async def test_ethernet_crosses_nodes_over_vxlan(
    two: tuple[Node, Node], underlay: Wire, ports: tuple[int, int], facts: NodeFacts
) -> None:
    first, second = two
    one, other = underlay.address(1), underlay.address(2)
    before = await first.census(), await second.census()
    near = intent(workload(1, 2, ETHERNET), VxlanEnd(one, other, 7, *ports), ETHERNET)
    far = intent(VxlanEnd(other, one, 7, *reversed(ports)), workload(2, 1, ETHERNET), ETHERNET)
    await second.executor.create(connection_items(far, facts))
    await first.executor.create(connection_items(near, facts))
    assert await both_families("vpt-w1", 2) == (5, 5)
    assert await asyncio.to_thread(ping, "vpt-w2", "10.9.0.1", size=MTU - 28) == 5
    await streams_arrive()
    await first.executor.delete(connection_items(near, facts))
    await second.executor.delete(connection_items(far, facts))
    assert (await first.census(), await second.census()) == before


def wireguard_pair(
    near_port: int, far_port: int, underlay: Wire = IPV4, *, shared: bool = False
) -> tuple[WireguardEnd, WireguardEnd]:
    mine, theirs = os.urandom(32), os.urandom(32)
    one, other = underlay.address(1), underlay.address(2)
    near = WireguardEnd(one, other, near_port, far_port, text(mine), text(public_key(theirs)), shared)
    far = WireguardEnd(other, one, far_port, near_port, text(theirs), text(public_key(mine)), shared)
    return near, far


def text(key: bytes) -> str:
    return b64encode(key).decode()


async def established(node_: Node, items: Iterable[Item]) -> None:
    """Until every peer among ``items`` has shaken hands."""
    waiting = Waiting(node_.session, os.getpid())
    await waiting.subscribe(node_.session)
    known = node_.executor.handles.known
    async with asyncio.timeout(15):
        for each in items:
            if isinstance(each, WireguardPeer):
                index, peer = known[each.interface], known[each.key]
                assert isinstance(index, int)
                assert isinstance(peer, int)
                await waiting.established(index, peer)


@pytest.mark.parametrize("underlay", [IPV4, IPV6], indirect=True)
async def test_ip_crosses_nodes_over_wireguard_on_ports_of_its_own(
    two: tuple[Node, Node], underlay: Wire, facts: NodeFacts
) -> None:
    first, second = two
    before = await first.census(), await second.census()
    near_end, far_end = wireguard_pair(61901, 61902, underlay)
    near = connection_items(intent(workload(1, 2, IP), near_end, IP), facts)
    far = connection_items(intent(far_end, workload(2, 1, IP), IP), facts)
    await second.executor.create(far)
    await first.executor.create(near)
    await established(first, near)
    await established(second, far)
    assert await both_families("vpt-w1", 2) == (5, 5)
    assert await asyncio.to_thread(ping, "vpt-w2", "10.9.0.1", size=MTU - 28) == 5
    await streams_arrive()
    await first.executor.delete(near)
    await second.executor.delete(far)
    assert (await first.census(), await second.census()) == before


async def test_of_three_tunnels_on_the_shared_port_the_middle_one_may_go(two: tuple[Node, Node]) -> None:
    first, second = two
    pairs = [wireguard_pair(51820, 51820, shared=True) for _ in range(3)]
    near, far = [], []
    for number, (mine, theirs) in enumerate(pairs):
        one, other = 2 * number + 1, 2 * number + 2
        near.append(connection_items(intent(workload(one, other, IP), mine, IP, number), FACTS))
        far.append(connection_items(intent(theirs, workload(other, one, IP), IP, number), FACTS))
        await second.executor.create(far[-1])
        await first.executor.create(near[-1])
        await established(first, near[-1])
    await first.executor.delete(near[1])
    await second.executor.delete(far[1])
    for number in (0, 2):  # new interfaces on one side: the other must still answer their handshakes
        await first.executor.delete(near[number])
        await first.executor.create(near[number])
    for number in (0, 2):
        await established(first, near[number])
    assert await both_families("vpt-w1", 2) == (5, 5)
    assert await both_families("vpt-w5", 6) == (5, 5)


async def test_the_kernel_answers_no_tunnel_port_and_keeps_its_own_tcp(two: tuple[Node, Node]) -> None:
    """A tunnel packet draws no ICMP; a port nobody holds still does; TCP between the hosts goes on."""
    first, second = two
    near_end, _ = wireguard_pair(61901, 61902)
    items = connection_items(intent(workload(1, 2, IP), near_end, IP), FACTS)
    await first.executor.create(items)
    assert await asyncio.to_thread(refused, "vpt-n2", "10.254.0.1", 61901) is False
    assert await asyncio.to_thread(refused, "vpt-n2", "10.254.0.1", 40000) is True
    assert await asyncio.to_thread(tcp_bytes, "vpt-n1", "vpt-n2", "10.254.0.1") == STREAM
    await first.executor.delete(items)
    assert second.session.connected


_REFUSED = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(b"x")
try:
    s.recv(1)
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("silent")
"""


def refused(netns: str, address: str, port: int) -> bool:
    """Whether a datagram to that port is answered with ICMP port unreachable."""
    return inside(netns, "python3", "-c", _REFUSED, address, str(port)).strip() == "refused"


_SERVE = """
import socket
s = socket.create_server(("::", 7777), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
c, _ = s.accept()
c.sendall(bytes(8 << 20))
"""

_FETCH = """
import socket, sys
c = socket.create_connection((sys.argv[1], 7777), timeout=10)
n = 0
while data := c.recv(65536):
    n += len(data)
print(n)
"""


def tcp_bytes(server: str, client: str, address: str) -> int:
    """How many bytes arrive over the hosts' own TCP."""
    import subprocess

    serving = subprocess.Popen(
        ["ip", "netns", "exec", server, "python3", "-c", _SERVE], stdout=subprocess.PIPE, text=True
    )
    assert serving.stdout is not None
    with serving:
        try:
            assert serving.stdout.readline() == "ready\n"
            return int(inside(client, "python3", "-c", _FETCH, address))
        finally:
            serving.kill()
