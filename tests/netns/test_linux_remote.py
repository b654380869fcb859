"""Remote connections on the linux dataplane: tunnels between two nodes, with real packets."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest

from forwarder_vpp.dataplane.contract.intent import NetnsId, VxlanEnd, WireguardEnd
from nsm.model.errors import Code, NsmError
from nsmctl.lab import namespaces
from nsmctl.lab.namespaces import entered
from tests.netns.linux_node import Executor, client_end, dataplane, endpoint_end, inside, ping
from tests.netns.linux_sides import (
    Sides,
    any_wireguard,
    assert_reachable,
    connect,
    disconnect,
    everywhere,
    sent_by,
    vxlan,
    wireguard,
    wireguard_in_kernel,
    without_detour,
    without_neighbours,
)

pytestmark = [pytest.mark.linux, pytest.mark.netns]


@pytest.mark.parametrize("v6", [False, True])
async def test_vxlan_between_two_nodes(sides: Sides, v6: bool) -> None:
    before = without_neighbours(everywhere(sides))
    intents = vxlan(sides, v6=v6)
    await connect(sides, intents)
    assert_reachable(sides)
    _, tunnel = (await sides[0].plane.counters([intents[0]]))["id1"]
    assert tunnel.tx_packets >= 20
    await disconnect(sides, intents)
    assert without_neighbours(everywhere(sides)) == before


async def test_vxlan_is_adopted_without_a_write(sides: Sides) -> None:
    intents = vxlan(sides)
    await connect(sides, intents)
    items = sides[0].plane.items(intents[0])
    await sides[0].plane.close()
    async with dataplane(sides[0].node, sides[0].state) as plane:
        found = await Executor(plane).dump(items)
        assert [found[item.key].item for item in items] == list(items)
        assert plane.writes == 0
    assert_reachable(sides)


async def test_one_vni_with_two_remotes_is_refused(sides: Sides) -> None:
    intents = vxlan(sides)
    await connect(sides, intents)
    before = without_neighbours(everywhere(sides))
    other = replace(
        intents[0],
        owner="owner9",
        client=client_end(sides[0].netns, "nsm-9", 9),
        endpoint=VxlanEnd("192.0.2.1", "192.0.2.9", 7),
    )
    with pytest.raises(NsmError) as refused:
        await sides[0].executor.create(sides[0].plane.items(other))
    assert refused.value.code is Code.ALREADY_EXISTS
    assert refused.value.field == "mechanism.parameters.vni"
    assert without_neighbours(everywhere(sides)) == before


async def test_a_vxlan_port_that_is_taken_is_refused(sides: Sides) -> None:
    with entered(sides[0].node):
        holder = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with holder:
        holder.bind(("", 4790))
        before = without_neighbours(everywhere(sides))
        with pytest.raises(NsmError) as refused:
            await sides[0].executor.create(sides[0].plane.items(vxlan(sides, port=4790)[0]))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert refused.value.field == "mechanism.parameters.dst_port"
    assert without_neighbours(everywhere(sides)) == before


async def test_a_local_connection_becomes_remote_under_the_same_name(sides: Sides) -> None:
    intents = vxlan(sides)
    await connect(sides, intents)
    there = sides[0].plane.namespaces.learn(str(sides[1].workload))
    local = replace(intents[0], endpoint=endpoint_end(there, "x", 2))
    await sides[0].executor.create(sides[0].plane.items(local))
    assert "veth" in inside(sides[0].workload, "ip", "-d", "link", "show", "nsm-1")


@any_wireguard
async def test_wireguard_between_two_nodes(sides: Sides) -> None:
    before = without_neighbours(everywhere(sides))
    intents = wireguard(sides)
    await connect(sides, intents)
    assert_reachable(sides)
    await disconnect(sides, intents)
    assert without_neighbours(everywhere(sides)) == before
    for side in sides:
        assert not list(side.state.rglob("*.sock"))


@any_wireguard
async def test_wireguard_outlives_the_agent_and_is_adopted(sides: Sides) -> None:
    intents = wireguard(sides)
    await connect(sides, intents)
    items = sides[0].plane.items(intents[0])
    await sides[0].plane.close()
    assert_reachable(sides)
    async with dataplane(sides[0].node, sides[0].state) as plane:  # whoever made the tunnel, it is found
        executor = Executor(plane)
        found = await executor.dump(items)
        assert [found[item.key].item for item in items] == list(items)
        assert plane.writes == 0
        assert_reachable(sides)
        await executor.delete(items)
        assert "nsm-1" not in inside(sides[0].workload, "ip", "link")


@any_wireguard
async def test_the_same_peer_elsewhere_is_configured_in_place(sides: Sides) -> None:
    intents = wireguard(sides)
    await connect(sides, intents)
    assert_reachable(sides)
    inside(sides[1].node, "ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    tunnel = intents[0].endpoint
    assert isinstance(tunnel, WireguardEnd)
    moved = replace(intents[0], mtu=1400, endpoint=replace(tunnel, remote="192.0.2.9"))
    old, new = sides[0].plane.items(intents[0])[0], sides[0].plane.items(moved)[0]
    descriptor = sides[0].executor.descriptors["wireguard_device"]
    assert descriptor.updatable(old, new)
    handle = sides[0].executor.handles.known[old.key]
    await descriptor.update(old, new, handle, sides[0].executor.handles)
    assert (await sides[0].executor.dump([new]))[new.key].item == new
    await sides[0].plane.settle(moved, 10)
    assert ping(sides[0].workload, "172.16.1.2", size=1372) == 5


@wireguard_in_kernel
async def test_the_kernels_tunnel_ends_with_the_workloads_namespace(sides: Sides) -> None:
    intents = wireguard(sides)
    items = sides[0].plane.items(intents[0])
    await connect(sides, intents)
    told: asyncio.Future[NetnsId] = asyncio.get_running_loop().create_future()
    sides[0].plane.namespaces.on_gone(told.set_result)
    namespaces.delete(sides[0].workload.name)
    async with asyncio.timeout(30):
        await told
    assert await sides[0].executor.dump(items) == {}
    with pytest.raises(NsmError) as refused:
        await sides[0].plane.settle(intents[0], 1)
    assert refused.value.code in {Code.UNAVAILABLE, Code.FAILED_PRECONDITION}
    assert "192.0.2.1:52001" not in inside(sides[0].node, "ss", "-Hlun")


@wireguard_in_kernel
async def test_the_kernels_device_is_in_the_workload_and_its_socket_at_the_node(sides: Sides) -> None:
    intents = wireguard(sides)
    await connect(sides, intents)
    assert "    wireguard " in inside(sides[0].workload, "ip", "-d", "link", "show", "nsm-1")
    assert ":52001" in inside(sides[0].node, "ss", "-Hlun")
    assert ":52001" not in inside(sides[0].workload, "ss", "-Hlun")


@any_wireguard
async def test_a_key_that_is_none_is_refused_and_leaves_nothing(sides: Sides) -> None:
    before = without_neighbours(everywhere(sides))
    intent = wireguard(sides)[0]
    tunnel = intent.endpoint
    assert isinstance(tunnel, WireguardEnd)
    bad = replace(intent, endpoint=replace(tunnel, remote_public_key="AAEC"))
    with pytest.raises(NsmError) as refused:
        await sides[0].executor.create(sides[0].plane.items(bad))
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.field == "mechanism.parameters"
    assert without_neighbours(everywhere(sides)) == before
    assert not list(sides[0].state.rglob("*.sock"))


@any_wireguard
async def test_a_port_holds_one_wireguard_tunnel(sides: Sides) -> None:
    await connect(sides, wireguard(sides, port=51820))
    before = without_neighbours(everywhere(sides))
    with pytest.raises(NsmError) as refused:
        await sides[0].executor.create(sides[0].plane.items(wireguard(sides, port=51820, number=2)[0]))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert "51820" in refused.value.message
    assert without_neighbours(everywhere(sides)) == before
    assert_reachable(sides)


@any_wireguard
async def test_a_handshake_that_never_comes_is_said(sides: Sides) -> None:
    intent = wireguard(sides)[0]
    await sides[0].executor.create(sides[0].plane.items(intent))
    with pytest.raises(NsmError) as refused:
        await sides[0].plane.settle(intent, 0.2)
    assert refused.value.code is Code.DEADLINE_EXCEEDED
    assert "192.0.2.2:53001" in refused.value.message
    await sides[0].executor.delete(sides[0].plane.items(intent))


@any_wireguard
async def test_a_taken_name_leaves_no_process(sides: Sides) -> None:
    inside(sides[0].workload, "ip", "link", "add", "nsm-1", "type", "bridge")
    before = without_neighbours(everywhere(sides))
    with pytest.raises(NsmError) as refused:
        await sides[0].executor.create(sides[0].plane.items(wireguard(sides)[0]))
    assert refused.value.field == "mechanism.parameters.name"
    assert without_neighbours(everywhere(sides)) == before
    assert not list(sides[0].state.rglob("*.sock"))


@any_wireguard
async def test_full_packets_cross_the_underlay_in_one_piece(sides: Sides) -> None:
    await connect(sides, wireguard(sides))
    (link,) = json.loads(inside(sides[0].workload, "ip", "-j", "link", "show", "nsm-1"))
    before = sent_by(sides[0].node)
    assert ping(sides[0].workload, "172.16.1.2", count=20, size=link["mtu"] - 28) == 20
    assert sent_by(sides[0].node) - before < 30  # in two pieces each it would be forty


@any_wireguard
async def test_twenty_tunnels_at_once(sides: Sides) -> None:
    before = without_neighbours(everywhere(sides))
    pairs = [wireguard(sides, port=53000 + number, number=number) for number in range(1, 21)]
    pairs = [(without_detour(one), two) for one, two in pairs]
    await asyncio.gather(*(sides[1].executor.create(sides[1].plane.items(two)) for _, two in pairs))
    await asyncio.gather(*(sides[0].executor.create(sides[0].plane.items(one)) for one, _ in pairs))
    await asyncio.gather(*(sides[0].plane.settle(one, 15) for one, _ in pairs))
    for number in (1, 10, 20):
        assert_reachable(sides, number)
    await asyncio.gather(*(disconnect(sides, pair) for pair in pairs))
    assert without_neighbours(everywhere(sides)) == before
