"""The whole dataplane on a real VPP: start, adoption by the next agent, VPP's death, a changing uplink."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd
from forwarder_vpp.dataplane.contract.items import Item, Key, Present
from forwarder_vpp.dataplane.vpp.dataplane import VppDataplane, VppOptions
from forwarder_vpp.dataplane.vpp.process import identify
from nsm.model.context import Route
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import ETHERNET, IP, REMOTE, VXLAN, Mechanism
from nsmctl.lab.namespaces import entered
from tests.contract.targets import vpp_binary
from tests.netns.vpp_node import Executor, inside, namespaces, ping, run

pytestmark = [pytest.mark.vpp, pytest.mark.netns]

MTU = 1400
TUNNEL_IP = "10.253.0.1"


@pytest.fixture
def places() -> Iterator[None]:
    """This process in the node's namespace; a host on the far end of the uplink; two workloads."""
    vpp_binary()
    with namespaces("vpd-n1", "vpd-host", "vpd-w1", "vpd-w2"):
        wire = ("ip", "link", "add", "eth0", "netns", "vpd-n1", "type", "veth")
        run(*wire, "peer", "name", "eth0", "netns", "vpd-host")
        for netns, address in (("vpd-n1", f"{TUNNEL_IP}/24"), ("vpd-host", "10.253.0.2/24")):
            inside(netns, "ip", "addr", "add", address, "dev", "eth0")
            inside(netns, "ip", "link", "set", "eth0", "up")
        with entered(Path("/run/netns/vpd-n1")):
            yield


@asynccontextmanager
async def agent(folder: Path, *, tunnel_ip: str = TUNNEL_IP) -> AsyncIterator[VppDataplane]:
    found = VppDataplane(tunnel_ip, folder, VppOptions(), instance="vpd")
    await found.start()
    try:
        yield found
    finally:
        await found.close()


async def end_vpp(folder: Path) -> None:
    """What no agent does by itself."""
    found = VppDataplane(TUNNEL_IP, folder, VppOptions(uplink="none"), instance="vpd")
    assert found.process is not None
    await found.process.stop()


@pytest.fixture
async def folder(places: None, tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    await end_vpp(tmp_path)


def connection(dataplane: VppDataplane, payload: str = IP) -> Intent:
    client, endpoint = (
        KernelEnd(
            netns=dataplane.namespaces.learn(f"/run/netns/vpd-w{number}"),
            interface="nsm-1",
            addresses=(f"10.9.0.{number}/32", f"2001:db8::{number}/128"),
            routes=(Route(f"10.9.0.{3 - number}/32"), Route(f"2001:db8::{3 - number}/128")),
        )
        for number in (1, 2)
    )
    return Intent("id1", "nsm1-vpd1", payload, MTU, client, endpoint)


def executor(dataplane: VppDataplane) -> Executor:
    return Executor({each.kind: each for each in dataplane.descriptors})


async def dumped(dataplane: VppDataplane, items: tuple[Item, ...]) -> dict[Key, Present]:
    wanted = {each.key: each for each in items}
    found: dict[Key, Present] = {}
    for descriptor in dataplane.descriptors:
        mine = {key: item for key, item in wanted.items() if key.kind == descriptor.kind}
        found |= {each.key: each for each in await descriptor.dump(mine)}
    return found


async def test_a_connection_settles_counts_and_goes_without_leftovers(folder: Path) -> None:
    async with agent(folder) as dataplane:
        assert (dataplane.tunnel_ip, dataplane.tunnel_mtu) == (TUNNEL_IP, 1500)
        intent = connection(dataplane)
        work = executor(dataplane)
        await work.create(dataplane.node_items())
        before = sorted(map(str, await dumped(dataplane, dataplane.node_items())))
        links = inside("vpd-n1", "ip", "-o", "link").count("\n")
        batches = dataplane.session.counters.batches
        await work.create(dataplane.items(intent))
        assert dataplane.session.counters.batches > batches
        await dataplane.settle(intent, 5)
        assert await asyncio.to_thread(ping, "vpd-w1", "10.9.0.2") == 5
        assert await asyncio.to_thread(ping, "vpd-w1", "2001:db8::2") == 5
        client, endpoint = (await dataplane.counters([intent]))["id1"]
        assert client.rx_packets >= 10
        assert endpoint.tx_packets >= 10
        assert endpoint.rx_bytes >= 10 * 84
        await work.delete(dataplane.items(intent))
        assert sorted(map(str, await dumped(dataplane, dataplane.node_items()))) == before
        assert inside("vpd-n1", "ip", "-o", "link").count("\n") == links
        assert "nsm-1" not in inside("vpd-w1", "ip", "-o", "link")


async def test_the_next_agent_adopts_all_of_it_and_writes_nothing(folder: Path) -> None:
    async with agent(folder) as first:
        intent = connection(first)
        items = (*first.node_items(), *first.items(intent))
        await executor(first).create(items)
        pid = first.session.vpp_pid
    assert identify(pid) is not None
    assert await asyncio.to_thread(ping, "vpd-w1", "10.9.0.2") == 5
    async with agent(folder) as second:
        assert second.session.vpp_pid == pid
        intent = connection(second)
        wanted = {
            each.key: each
            for each in (*second.node_items(), *second.items(intent))
            if each.key.kind != "link_config"  # the kernel's side has tests of its own
        }
        found = await dumped(second, tuple(wanted.values()))
        assert {key: found[key].item for key in wanted if key in found} == wanted
        connection_keys = {each.key for each in second.items(intent)}
        assert {found[key].owner for key in wanted if key in connection_keys} == {"nsm1-vpd1"}
        assert second.session.counters.mutating == 0
        await second.settle(intent, 5)
        assert set(await second.counters([intent])) == {"id1"}
        again = executor(second)
        for key, present in found.items():
            again.items[key] = wanted[key]
            again.handles.known[key] = present.handle
        await again.delete(wanted.values())


async def test_after_vpps_death_everything_is_made_again(folder: Path) -> None:
    async with agent(folder) as dataplane:
        intent = connection(dataplane)
        items = (*dataplane.node_items(), *dataplane.items(intent))
        work = executor(dataplane)
        await work.create(items)
        lost = asyncio.Event()
        dataplane.on_lost(lost.set)
        assert dataplane.process is not None
        kill(dataplane.process.pid)
        await lost.wait()
        assert await dataplane.counters([intent]) == {}
        for key in died_with_vpp(items):
            del work.items[key], work.handles.known[key]
        await work.create(items)
        await dataplane.settle(intent, 5)
        assert await asyncio.to_thread(ping, "vpd-w1", "10.9.0.2") == 5
        await work.delete(items)


def died_with_vpp(items: tuple[Item, ...]) -> set[Key]:
    """What was in VPP, and what was configured on its interfaces (the kernel's side of a tap goes with it)."""
    gone: set[Key] = set()
    before = -1
    while len(gone) > before:
        before = len(gone)
        for each in items:
            in_vpp = each.key.kind.startswith("vpp_") and each.key.kind != "vpp_udp_port"
            if in_vpp or not gone.isdisjoint(each.requires):
                gone.add(each.key)
    return gone


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def test_the_uplink_is_followed(folder: Path) -> None:
    async with agent(folder) as dataplane:
        before = dataplane.node_items()
        changed = asyncio.Event()
        dataplane.on_node_changed(changed.set)
        inside("vpd-n1", "ip", "link", "set", "eth0", "mtu", "1450")
        await changed.wait()
        assert dataplane.tunnel_mtu == 1450
        changed.clear()
        inside("vpd-n1", "ip", "route", "add", "192.0.2.0/24", "via", "10.253.0.2")
        await changed.wait()
        added = {each.key for each in dataplane.node_items()} - {each.key for each in before}
        assert Key("vpp_route", "192.0.2.0/24") in added
        changed.clear()
        inside("vpd-host", "ping", "-c", "1", "-W", "2", TUNNEL_IP)
        while not any(key.kind == "vpp_neighbour" for key in added):
            await changed.wait()
            changed.clear()
            added = {each.key for each in dataplane.node_items()}
        await executor(dataplane).create(dataplane.node_items())


async def test_a_tunnel_port_that_another_process_has_is_refused(folder: Path) -> None:
    async with agent(folder) as dataplane:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((TUNNEL_IP, 4789))
            ports: Any = next(each for each in dataplane.descriptors if each.kind == "vpp_udp_port")
            item = next(each for each in dataplane.items(tunnel(dataplane)) if each.key.kind == ports.kind)
            with pytest.raises(NsmError, match="UDP port 4789") as caught:
                await ports.create(item, executor(dataplane).handles)
            assert caught.value.code is Code.RESOURCE_EXHAUSTED


def tunnel(dataplane: VppDataplane) -> Intent:
    from forwarder_vpp.dataplane.contract.intent import VxlanEnd

    intent = connection(dataplane, ETHERNET)
    return Intent(intent.id, intent.owner, ETHERNET, MTU, intent.client, VxlanEnd(TUNNEL_IP, "10.253.0.2", 5))


async def test_a_tunnel_address_that_nobody_has_is_refused_and_vpp_goes_on(folder: Path) -> None:
    with pytest.raises(NsmError, match="no network interface of this node has the address") as caught:
        async with agent(folder, tunnel_ip="10.253.9.9"):
            pass
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_what_it_cannot_carry_is_refused_with_the_reason(folder: Path) -> None:
    dataplane = VppDataplane(TUNNEL_IP, folder, VppOptions(api_socket="/nowhere"), instance="vpd")
    refusal = dataplane.refusal(Mechanism(REMOTE, VXLAN), IP)
    assert refusal is not None
    assert refusal.code is Code.INVALID_ARGUMENT
    assert "REMOTE/WIREGUARD for payload IP" in refusal.message
    assert dataplane.refusal(Mechanism(REMOTE, VXLAN), ETHERNET) is None
    unknown = dataplane.refusal(Mechanism(REMOTE, VXLAN), "SMOKE")
    assert unknown is not None
    assert unknown.field == "payload"
