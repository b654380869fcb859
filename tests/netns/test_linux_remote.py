"""Remote connections on the linux dataplane: tunnels between two nodes, with real packets."""

import asyncio
import base64
import json
import os
import select
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.linux import inotify_room, uapi, wireguard_go
from forwarder_vpp.dataplane.linux.dataplane import IN_KERNEL, WIREGUARD_GO, LinuxDataplane
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import Mechanism
from nsmctl.lab import namespaces
from nsmctl.lab.namespaces import entered
from tests.netns.linux_node import (
    Executor,
    census,
    client_end,
    dataplane,
    endpoint_end,
    inside,
    ping,
    underlay,
)

pytestmark = [pytest.mark.linux, pytest.mark.netns]

SO_RCVBUFFORCE = 33
WAITING = 700

any_wireguard = pytest.mark.parametrize("engine", [IN_KERNEL, WIREGUARD_GO])
wireguard_in_kernel = pytest.mark.parametrize("engine", [IN_KERNEL])
by_wireguard_go = pytest.mark.parametrize("engine", [WIREGUARD_GO])


@dataclass
class Side:
    node: Path
    workload: Path
    state: Path
    plane: LinuxDataplane
    executor: Executor
    netns: NetnsId


Sides = tuple[Side, Side]


def end_all(state: Path) -> None:
    """What a test left running."""
    for path in tuple(state.rglob("*.sock")):
        uapi.end(path)


@pytest.fixture
def places(make_netns: Callable[[str], Path]) -> list[Path]:
    nodes = [make_netns("n"), make_netns("m"), make_netns("c"), make_netns("e")]
    underlay(nodes[0], nodes[1])
    for workload in nodes[2:]:  # no address that comes of itself, and later
        inside(workload, "sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1")
    return nodes


@pytest.fixture
def engine() -> str:
    """Which WireGuard makes the tunnels; tests of WireGuard say it, to others it does not matter."""
    return ""


@pytest.fixture
async def sides(places: list[Path], tmp_path: Path, engine: str) -> AsyncIterator[Sides]:
    first, second, client, endpoint = places
    engines = [engine] if engine else []
    async with (
        dataplane(first, tmp_path / "a", "192.0.2.1", engines=engines) as one,
        dataplane(second, tmp_path / "b", "192.0.2.2", engines=engines) as two,
    ):
        refusal = one.refusal(Mechanism("REMOTE", "WIREGUARD"), "IP")
        if engine and refusal is not None:
            pytest.skip(f"NO WIREGUARD BY {engine.upper()}: {refusal.message.partition(': ')[2]}")
        yield (
            Side(first, client, tmp_path / "a", one, Executor(one), one.namespaces.learn(str(client))),
            Side(second, endpoint, tmp_path / "b", two, Executor(two), two.namespaces.learn(str(endpoint))),
        )
    await asyncio.to_thread(end_all, tmp_path)


def vxlan(sides: Sides, *, vni: int = 7, port: int = 4789, v6: bool = False) -> tuple[Intent, Intent]:
    one, two = ("fd00::1", "fd00::2") if v6 else ("192.0.2.1", "192.0.2.2")
    out, back = VxlanEnd(one, two, vni, port, port), VxlanEnd(two, one, vni, port, port)
    return (
        Intent("id1", "owner1", "ETHERNET", 1426, client_end(sides[0].netns), out),
        Intent("id2", "owner2", "ETHERNET", 1426, back, endpoint_end(sides[1].netns)),
    )


def key() -> tuple[str, str]:
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return base64.b64encode(private.private_bytes_raw()).decode(), base64.b64encode(public).decode()


def wireguard(sides: Sides, *, port: int = 52001, number: int = 1) -> tuple[Intent, Intent]:
    (private1, public1), (private2, public2) = key(), key()
    out = WireguardEnd("192.0.2.1", "192.0.2.2", port, port + 1000, private1, public2)
    back = WireguardEnd("192.0.2.2", "192.0.2.1", port + 1000, port, private2, public1)
    return (
        Intent(
            f"i{number}", f"o{number}", "IP", 1440, client_end(sides[0].netns, f"nsm-{number}", number), out
        ),
        Intent(
            f"j{number}",
            f"p{number}",
            "IP",
            1440,
            back,
            endpoint_end(sides[1].netns, f"nse-{number}", number),
        ),
    )


async def connect(sides: Sides, intents: tuple[Intent, Intent]) -> None:
    """The endpoint's node first, as a Request does it on its way back."""
    for side, intent in ((sides[1], intents[1]), (sides[0], intents[0])):
        await side.executor.create(side.plane.items(intent))
        await side.plane.settle(intent, 10)


async def disconnect(sides: Sequence[Side], intents: Sequence[Intent]) -> None:
    for side, intent in zip(sides, intents, strict=True):
        await side.executor.delete(side.plane.items(intent))


def everywhere(sides: Sides) -> list[object]:
    return census(*(place for side in sides for place in (side.node, side.workload)))


def without_neighbours(found: list[object]) -> list[object]:
    """The underlay learns its neighbours by itself."""
    return [each for each in found if not (isinstance(each, tuple) and each[1] == "neigh")]


def assert_reachable(sides: Sides, number: int = 1) -> None:
    assert ping(sides[0].workload, f"172.16.{number}.2", size=1398) == 5
    assert ping(sides[0].workload, f"fd16:{number}::2") == 5
    assert ping(sides[1].workload, f"172.16.{number}.1") == 5
    assert ping(sides[1].workload, f"fd16:{number}::1") == 5


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


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """What stands for the machine's limit, which other labs may have raised; folder ``ours`` stands for /proc."""
    (tmp_path / "ours").mkdir()
    path = tmp_path / "max_user_instances"
    path.write_text("128\n")
    tunnels = partial(inotify_room.running, tmp_path / "ours")
    room = partial(inotify_room.InotifyRoom, path, tmp_path / "lock", tunnels=tunnels)
    monkeypatch.setattr(wireguard_go, "InotifyRoom", room)
    return lambda: int(path.read_text())


def count_tunnels(side: Side) -> None:
    """Those of ``side`` are tunnels of this test's machine."""
    for path in side.state.rglob("*.sock"):
        with uapi.connect(path) as client:
            process = uapi.owner_of(client)
        (side.state.parent / "ours" / str(process)).symlink_to(f"/proc/{process}")


@by_wireguard_go
async def test_the_limit_on_inotify_instances_is_raised_as_long_as_it_is_needed(
    limit: Callable[[], int], sides: Sides
) -> None:
    intents = wireguard(sides)
    await connect(sides, intents)
    assert limit() == inotify_room.NEEDED
    for side in sides:
        count_tunnels(side)
    await sides[0].plane.close()
    assert limit() == inotify_room.NEEDED, "the other agent still needs it"
    await disconnect(sides[1:], intents[1:])
    await sides[1].plane.close()
    assert limit() == 128 + 1, "the tunnel that outlives its agent takes nothing from others"
    await asyncio.to_thread(end_all, sides[0].state)
    async with dataplane(sides[0].node, sides[0].state):
        assert limit() == 128


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


@by_wireguard_go
@pytest.mark.parametrize("stopped", [0, 1])
async def test_a_process_that_does_not_run_for_a_while_loses_nothing(sides: Sides, stopped: int) -> None:
    """Seven hundred packets wait for it, at its device or at its socket."""
    await connect(sides, wireguard(sides))
    sender, receiver = (datagrams(side.workload) for side in sides)
    process = open_process(sides[stopped].state)
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        receiver.settimeout(20)
        receiver.bind(("172.16.1.2", 4242))
        before = sent_by(sides[0].node)
        try:
            signal.pidfd_send_signal(process, signal.SIGSTOP)
            for number in range(WAITING):
                sender.sendto(number.to_bytes(4), ("172.16.1.2", 4242))
            if stopped == 1:
                await asyncio.to_thread(await_packets, sides[0].node, before + WAITING)
        finally:
            signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)
        got = {int.from_bytes(receiver.recv(16)) for _ in range(WAITING)}
    assert got == {*range(WAITING)}


@by_wireguard_go
async def test_the_process_ends_with_the_workloads_namespace(sides: Sides) -> None:
    intent = wireguard(sides)[0]
    items = sides[0].plane.items(intent)
    await sides[0].executor.create(items)
    process = open_process(sides[0].state)
    told: asyncio.Future[NetnsId] = asyncio.get_running_loop().create_future()
    sides[0].plane.namespaces.on_gone(told.set_result)
    namespaces.delete(sides[0].workload.name)
    async with asyncio.timeout(30):
        await told
    assert await asyncio.to_thread(has_ended, process)
    found = await sides[0].executor.dump(items)
    assert all(each.item is None for each in found.values())
    for key in found:
        await (
            sides[0].executor.descriptors[key.kind].delete(None, found[key].handle, sides[0].executor.handles)
        )
    assert not list(sides[0].state.rglob("*.sock"))


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


def without_detour(intent: Intent) -> Intent:
    """Without the route that only one interface can have."""
    assert isinstance(intent.client, KernelEnd)
    return replace(intent, client=replace(intent.client, routes=intent.client.routes[:2]))


def open_process(state: Path) -> int:
    (path,) = state.rglob("*.sock")
    with uapi.connect(path) as client:
        return os.pidfd_open(uapi.owner_of(client))


def datagrams(netns: Path) -> socket.socket:
    with entered(netns):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def sent_by(node: Path) -> int:
    """Packets that have left by the node's uplink."""
    (link,) = json.loads(inside(node, "ip", "-j", "-s", "link", "show", "eth0"))
    return int(link["stats64"]["tx"]["packets"])


def await_packets(node: Path, wanted: int) -> None:
    """Until so many have left; each look takes some milliseconds."""
    limit = time.monotonic() + 30
    while sent_by(node) < wanted:
        assert time.monotonic() < limit, f"{sent_by(node)} of {wanted} packets"


def has_ended(process: int) -> bool:
    try:
        return bool(select.select([process], [], [], 20)[0])
    finally:
        os.close(process)
