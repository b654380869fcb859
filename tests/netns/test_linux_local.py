"""Local connections on the linux dataplane, with real packets."""

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId
from forwarder_vpp.dataplane.contract.items import Item
from forwarder_vpp.dataplane.linux.dataplane import LinuxDataplane
from forwarder_vpp.dataplane.netlink.link_config import LinkConfig
from nsm.model.context import IpNeighbor, PolicyRoute, Route
from nsm.model.errors import Code, NsmError
from nsmctl.lab import namespaces
from tests.netns.linux_node import Executor, census, client_end, dataplane, endpoint_end, inside, local, ping

pytestmark = [pytest.mark.linux, pytest.mark.netns]

SOLICITED = "ff0200000000000000000001ff"
"""The beginning of an address's solicited-node group; its end is the address's."""
TRIES = 60


@dataclass
class World:
    node: Path
    client: Path
    endpoint: Path
    state: Path
    plane: LinuxDataplane
    executor: Executor
    client_id: NetnsId
    endpoint_id: NetnsId

    def intent(self) -> Intent:
        return local(self.client_id, self.endpoint_id)

    def items(
        self, *, owner: str = "owner1", client: KernelEnd | None = None, endpoint: KernelEnd | None = None
    ) -> tuple[Item, ...]:
        intent = self.intent()
        near, far = client or intent.client, endpoint or intent.endpoint
        return self.plane.items(replace(intent, owner=owner, client=near, endpoint=far))


def open_files() -> set[str]:
    """What the descriptors of this process lead to."""
    return {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


@contextlib.contextmanager
def process_inside(netns: Path) -> Iterator[int]:
    """A process there; its id."""
    with subprocess.Popen(["nsenter", f"--net={netns}", "sleep", "60"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def joined(pid: int, tail: str) -> bool:
    """Whether the namespace of a process is in the solicited-node group of an address that ends like that."""
    return SOLICITED + tail in Path(f"/proc/{pid}/net/igmp6").read_text()


@pytest.fixture
def places(make_netns: Callable[[str], Path]) -> tuple[Path, Path, Path]:
    return make_netns("n"), make_netns("c"), make_netns("e")


@pytest.fixture
async def world(places: tuple[Path, Path, Path], tmp_path: Path) -> AsyncIterator[World]:
    node, client, endpoint = places
    inside(node, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    async with dataplane(node, tmp_path) as plane:
        ids = [plane.namespaces.learn(str(each)) for each in (client, endpoint)]
        yield World(node, client, endpoint, tmp_path, plane, Executor(plane), *ids)


async def test_a_local_connection_carries_both_families_both_ways(world: World) -> None:
    before = census(world.node, world.client, world.endpoint)
    items = world.items()
    await world.executor.create(items)
    assert ping(world.client, "172.16.1.2", size=3000) == 5
    assert ping(world.client, "fd16:1::2", size=3000) == 5
    assert ping(world.endpoint, "172.16.1.1") == 5
    assert ping(world.endpoint, "fd16:1::1") == 5
    assert census(world.node) == before[: len(before) // 3]  # the node has nothing of it
    await world.executor.delete(items)
    assert census(world.node, world.client, world.endpoint) == before


async def test_who_asks_for_an_ipv6_address_at_once_is_heard(world: World) -> None:
    """The kernel joins an address's solicited-node group after it has accepted the address, at times long after."""
    late = []
    with process_inside(world.client) as client, process_inside(world.endpoint) as endpoint:
        for number in range(TRIES):
            items = world.items()
            await world.executor.create(items)
            late += [
                number for pid, tail in ((client, "000001"), (endpoint, "000002")) if not joined(pid, tail)
            ]
            await world.executor.delete(items)
    assert late == []


async def test_counters_are_those_of_each_side(world: World) -> None:
    await world.executor.create(world.items())
    ping(world.client, "172.16.1.2", count=7, size=100)
    (client, endpoint) = (await world.plane.counters([world.intent()]))["id-owner1"]
    assert client.rx_packets >= 7
    assert client.rx_bytes >= 7 * 128
    assert client.rx_packets == endpoint.tx_packets
    assert client.tx_bytes == endpoint.rx_bytes


async def test_the_next_agent_finds_everything_as_it_was_and_writes_nothing(world: World) -> None:
    items = world.items()
    await world.executor.create(items)
    await world.plane.close()
    async with dataplane(world.node, world.state) as plane:
        executor = Executor(plane)
        found = await executor.dump(items)
        assert {key: each.item for key, each in found.items()} == {item.key: item for item in items}
        assert plane.namespaces.learn(str(world.client)) == world.client_id
        assert plane.writes == 0
        await executor.delete(items)
        assert "nsm-1" not in inside(world.client, "ip", "link")


async def test_a_refresh_is_found_equal_without_a_descriptor(world: World) -> None:
    items = world.items()
    await world.executor.create(items)
    writes = world.plane.writes
    found = await world.executor.dump(items)
    assert [found[item.key].item for item in items] == list(items)
    assert world.plane.writes == writes


async def test_changed_configuration_is_written_by_difference(world: World) -> None:
    *_, old, _ = items = world.items()
    await world.executor.create(items)
    inside(world.client, "ip", "addr", "add", "203.0.113.9/32", "dev", "nsm-1")  # the workload's own
    inside(world.client, "ip", "route", "add", "203.0.113.128/25", "dev", "nsm-1")
    end = replace(
        client_end(world.client_id),
        addresses=("172.16.9.1/32", "fd16:1::1/128"),
        routes=(Route("172.16.1.2/32"), Route("198.51.100.0/24"), Route("fd16:1::2/128")),
        neighbours=(IpNeighbor("172.16.1.2", "02:00:00:00:00:09"),),
    )
    new = world.items(client=end)[1]
    writes = world.plane.writes
    await world.executor.descriptors["link_config"].update(old, new, None, world.executor.handles)
    addresses = inside(world.client, "ip", "-o", "addr", "show", "dev", "nsm-1")
    routes = inside(world.client, "ip", "route")
    assert "172.16.9.1/32" in addresses
    assert "172.16.1.1/32" not in addresses
    assert "203.0.113.9/32" in addresses
    assert "203.0.113.128/25" in routes
    assert "198.51.100.0/24 dev nsm-1" in routes
    assert "lladdr 02:00:00:00:00:09 PERMANENT" in inside(world.client, "ip", "neigh")
    assert world.plane.writes - writes == 4  # an address more, one less, a route replaced, a neighbour
    assert (await world.executor.dump([new]))[new.key].item == new


async def test_policy_rules_have_tables_of_their_own_and_go_with_the_connection(world: World) -> None:
    before = census(world.client)
    rules = (
        PolicyRoute("172.16.1.1/32", "6", "5201", "", (Route("0.0.0.0/0", "172.16.1.2"),)),
        PolicyRoute("fd16:1::1/128", "17", "100-200", "7"),
        PolicyRoute("", "", "", "9"),
    )
    items = world.items(client=replace(client_end(world.client_id), rules=rules))
    await world.executor.create(items)
    shown = inside(world.client, "ip", "rule")
    table = shown.split("ipproto tcp dport 5201 lookup ")[1].split()[0]
    assert "default via 172.16.1.2" in inside(world.client, "ip", "route", "show", "table", table)
    assert "dport 100-200" in inside(world.client, "ip", "-6", "rule")
    assert (await world.executor.dump(items))[items[1].key].item == items[1]
    without = world.items()[1]
    await world.executor.descriptors["link_config"].update(items[1], without, None, world.executor.handles)
    assert "lookup " + table not in inside(world.client, "ip", "rule")
    await world.executor.descriptors["link_config"].update(without, items[1], None, world.executor.handles)
    await world.executor.delete(items)
    assert census(world.client) == before


async def test_what_is_withdrawn_is_free_for_another_interface_while_the_link_is_still_there(
    world: World,
) -> None:
    end = replace(
        client_end(world.client_id),
        addresses=("172.16.9.1/32", "fd16:1::1/128"),
        routes=(Route("172.16.1.2/32"), Route("fd16:1::2/128")),
        rules=(PolicyRoute("172.16.9.1/32", "6", "5201", "", (Route("0.0.0.0/0"),)),),
    )
    items = world.items(client=end)
    await world.executor.create(items)
    inside(world.client, "ip", "addr", "add", "203.0.113.9/32", "dev", "nsm-1")  # the workload's own
    config = world.executor.descriptors["link_config"]
    await config.delete(items[1], None, world.executor.handles)
    shown = inside(world.client, "ip", "-o", "addr", "show", "dev", "nsm-1")
    assert "203.0.113.9/32" in shown
    assert "172.16.9.1" not in shown
    inside(world.client, "ip", "link", "add", "other", "type", "bridge")
    first = items[1]
    assert isinstance(first, LinkConfig)
    other = replace(first, interface="other")
    await config.create(other, world.executor.handles)
    assert "172.16.1.2 dev other" in inside(world.client, "ip", "route")
    assert "fd16:1::2 dev other" in inside(world.client, "ip", "-6", "route")
    await config.delete(other, None, world.executor.handles)
    assert "5201" not in inside(world.client, "ip", "rule")
    inside(world.client, "ip", "link", "del", "other")
    await world.executor.delete(items)


async def test_a_name_that_is_taken_is_refused_and_left_alone(world: World) -> None:
    for place in (world.client, world.endpoint):
        inside(place, "ip", "link", "add", "nsm-1" if place == world.client else "nse-1", "type", "bridge")
        before = census(world.client, world.endpoint)
        with pytest.raises(NsmError) as refused:
            await world.executor.create(world.items())
        assert refused.value.code is Code.ALREADY_EXISTS
        assert refused.value.field == "mechanism.parameters.name"
        assert census(world.client, world.endpoint) == before
        inside(place, "ip", "link", "del", "nsm-1" if place == world.client else "nse-1")


async def test_a_foreign_route_is_not_replaced_and_nothing_stays(world: World) -> None:
    inside(world.client, "ip", "link", "set", "lo", "up")
    inside(world.client, "ip", "route", "add", "198.51.100.0/24", "dev", "lo")
    veth, config, _ = world.items()
    await world.executor.create([veth])
    with pytest.raises(NsmError) as refused:
        await world.executor.create([config])
    assert refused.value.code is Code.ALREADY_EXISTS
    assert "198.51.100.0/24" in refused.value.message
    assert "172.16.1.1" not in inside(world.client, "ip", "addr")
    assert "198.51.100.0/24 dev lo" in inside(world.client, "ip", "route")


async def test_a_route_that_the_kernel_makes_with_an_address_may_be_asked_for(world: World) -> None:
    end = replace(
        client_end(world.client_id), addresses=("203.0.113.1/24",), routes=(Route("203.0.113.0/24"),)
    )
    items = world.items(client=end)
    await world.executor.create(items)
    assert "203.0.113.0/24 dev nsm-1" in inside(world.client, "ip", "route")
    assert (await world.executor.dump(items))[items[1].key].item == items[1]


async def test_drift_is_seen(world: World) -> None:
    items = world.items()
    await world.executor.create(items)
    inside(world.client, "ip", "route", "del", "198.51.100.0/24")
    found = await world.executor.dump(items)
    assert found[items[1].key].item != items[1]
    assert found[items[2].key].item == items[2]


async def test_the_end_of_a_namespace_is_told_and_the_rest_goes_away(world: World) -> None:
    items = world.items()
    await world.executor.create(items)
    told: asyncio.Future[NetnsId] = asyncio.get_running_loop().create_future()
    world.plane.namespaces.on_gone(told.set_result)
    namespaces.delete(world.client.name)
    async with asyncio.timeout(30):
        assert await told == world.client_id
    found = await world.executor.dump(items)
    half = found.get(items[0].key)  # the kernel tells first, and removes the links of a namespace after that
    assert half is None or half.item is None
    with pytest.raises(NsmError) as refused:
        await world.executor.create(items)
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert refused.value.field == "mechanism.parameters.inodeURL"
    world.executor.handles.known.update(
        {item.key: world.executor.handles.known.get(item.key) for item in items}
    )
    await world.executor.delete(items)
    assert "nse-1" not in inside(world.endpoint, "ip", "link")


async def test_a_path_that_is_no_namespace_is_refused(world: World, tmp_path: Path) -> None:
    for path in (str(tmp_path), "/proc/self/ns/mnt", "/nowhere"):
        with pytest.raises(NsmError) as refused:
            world.plane.namespaces.learn(path)
        assert refused.value.code is Code.INVALID_ARGUMENT


async def test_nothing_is_kept_open_into_a_workload(world: World) -> None:
    await world.executor.create(world.items())
    assert f"net:[{world.client_id.inode}]" not in open_files()
    told: asyncio.Future[NetnsId] = asyncio.get_running_loop().create_future()
    world.plane.namespaces.on_gone(told.set_result)
    namespaces.delete(world.endpoint.name)  # a socket into it would keep it alive
    async with asyncio.timeout(30):
        assert await told == world.endpoint_id


async def test_an_unmounted_namespace_is_found_again_by_its_process(world: World) -> None:
    with process_inside(world.client):
        items = world.items()
        await world.executor.create(items)
        namespaces.delete(world.client.name)
        await world.plane.close()
        async with dataplane(world.node, world.state) as plane:
            found = await Executor(plane).dump(items)
            assert found[items[1].key].item == items[1]


async def test_two_hundred_at_once(world: World) -> None:
    sets = []
    for number in range(200):
        near = client_end(world.client_id, f"c{number}", number)
        far = endpoint_end(world.endpoint_id, f"e{number}", number)
        near, far = replace(near, routes=near.routes[:2]), replace(far, routes=far.routes[:2])
        sets.append(world.items(owner=f"o{number}", client=near, endpoint=far))
    await asyncio.gather(*(world.executor.create(each) for each in sets))
    assert ping(world.client, "172.16.199.2") == 5
    await asyncio.gather(*(world.executor.delete(each) for each in sets))
    assert inside(world.client, "ip", "-o", "link").count("\n") == 1
