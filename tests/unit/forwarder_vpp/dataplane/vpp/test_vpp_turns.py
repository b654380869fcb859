"""What a new connection costs in VPP: how many turns, what is left of one that fails at any of its messages.

The agent's dataplane and reconciler against the fake VPP, which counts; the kernel's part always succeeds.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forwarder_vpp.dataplane.contract.intent import End, Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.netlink.namespaces import NodeNetlink
from forwarder_vpp.dataplane.vpp.dataplane import VppDataplane, VppOptions
from forwarder_vpp.dataplane.vpp.pool import WarmPool
from forwarder_vpp.reconciler.reconciler import Reconciler
from nsm.model.errors import NsmError
from nsm.model.mechanism import ETHERNET, IP
from tests.fakes.fake_vpp.server import FakeVpp

BUG = -168
PATIENCE = 20.0
NEAR, FAR = "10.0.0.1", "10.0.0.2"
_KEY = "A" * 42 + "{}="


def workload(number: int) -> KernelEnd:
    netns = NetnsId(4, number, number)
    return KernelEnd(netns, "nsm-1", (f"10.9.0.{number}/32",), mac=f"02:00:00:00:00:{number:02x}")


VXLAN_END = VxlanEnd(NEAR, FAR, 7)
WIREGUARD_END = WireguardEnd(NEAR, FAR, 51821, 51822, _KEY.format("E"), _KEY.format("I"))
CONNECTIONS: Mapping[str, tuple[str, End, End]] = {
    "local": (IP, workload(1), workload(2)),
    "vxlan-client": (ETHERNET, workload(1), VXLAN_END),
    "vxlan-endpoint": (ETHERNET, VXLAN_END, workload(2)),
    "wireguard-client": (IP, workload(1), WIREGUARD_END),
    "wireguard-endpoint": (IP, WIREGUARD_END, workload(2)),
}
TURNS = {
    "local": [1, 1, 18],
    "vxlan-client": [2, 9],
    "vxlan-endpoint": [2, 9],
    "wireguard-client": [2, 19],
    "wireguard-endpoint": [2, 19],
}
"""Messages of each turn, as docs/adr/0007 has them."""


def intent(name: str) -> Intent:
    payload, client, endpoint = CONNECTIONS[name]
    return Intent("id1", "nsm1-one", payload, 1400, client, endpoint)


@dataclass
class Kernel:
    """A kind of object that the kernel has: whatever is asked for is there."""

    kind: str
    there: dict[Key, Item] = field(default_factory=dict)

    async def create(self, item: Item, handles: Handles) -> object:
        self.there[item.key] = item
        return None

    def updatable(self, old: Item, new: Item) -> bool:
        return True

    async def update(self, old: Item, new: Item, handle: object, handles: Handles) -> object:
        return await self.create(new, handles)

    async def delete(self, item: Item, handle: object, handles: Handles) -> None:
        del self.there[item.key]

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        return [Present(key, item, None, "nsm1-one") for key, item in self.there.items()]


@dataclass
class Bench:
    fake: FakeVpp
    dataplane: VppDataplane
    reconciler: Reconciler

    async def realise(self, name: str) -> None:
        await self.reconciler.realise(intent(name), asyncio.get_running_loop().time() + PATIENCE)

    async def removed(self) -> None:
        self.reconciler.remove("id1")
        await self.reconciler.drain()

    def held(self) -> Any:
        """All that VPP and kernel have."""
        model = self.fake.model
        names = sorted(each.name for each in model.interfaces.values())
        kernel = [
            key for each in self.dataplane.descriptors if isinstance(each, Kernel) for key in each.there
        ]
        return names, dict(model.l2), sorted(model.l3), list(model.neighbours), list(model.peers), kernel


@pytest.fixture
async def bench(fake: FakeVpp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    async def nothing(_: object) -> None:
        """Neither namespaces nor a pool."""

    monkeypatch.setattr(NodeNetlink, "start", nothing)
    monkeypatch.setattr(WarmPool, "start", nothing)
    options = VppOptions(api_socket=fake.path, uplink="none")
    dataplane = VppDataplane(NEAR, tmp_path, options, instance="turns")
    kernel = {"veth", "link_config", "vpp_udp_port"}
    dataplane.descriptors = tuple(
        Kernel(each.kind) if each.kind in kernel else each for each in dataplane.descriptors
    )
    await dataplane.start()
    reconciler = Reconciler(dataplane, quarantine=600)
    await reconciler.start([])
    await reconciler.drain()
    yield Bench(fake, dataplane, reconciler)
    await reconciler.stop()
    await dataplane.close()


def messages(fake: FakeVpp, begin: int) -> list[str]:
    """What a connection's own part of what was received is: neither what lists nor what ends a list."""
    return [name for name in fake.names()[begin:] if name != "control_ping" and not name.endswith("_dump")]


@pytest.mark.parametrize("name", CONNECTIONS)
async def test_a_connection_takes_no_more_turns_than_it_must(bench: Bench, name: str) -> None:
    before = len(bench.fake.turns)
    await bench.realise(name)
    assert bench.fake.turns[before:] == TURNS[name]
    before = len(bench.fake.turns)
    await bench.realise(name)
    assert bench.fake.turns[before:] == []


def another_vpp(bench: Bench) -> asyncio.Event:
    """Set when the next VPP answers."""
    up = asyncio.Event()
    bench.dataplane.session.on_up(lambda _: up.set())
    return up


SETTINGS = {"sw_interface_set_mtu", "feature_gso_enable_disable", "sw_interface_tag_add_del"}


def rises_last(sent: Sequence[str]) -> bool:
    """Whether an interface rises when all is there that hangs on any."""
    rise = sent.index("sw_interface_set_flags")
    return set(sent[rise + 1 :]) <= SETTINGS | {"sw_interface_set_flags"}


@pytest.mark.parametrize("name", CONNECTIONS)
async def test_interfaces_rise_last(bench: Bench, name: str) -> None:
    """The tag, which says that a connection's cross-connect is there, and the first packet come after all the rest."""
    begin = len(bench.fake.received)
    await bench.realise(name)
    assert rises_last(messages(bench.fake, begin))
    up = another_vpp(bench)
    await bench.fake.kill()
    await bench.fake.start()
    begin = len(bench.fake.received)
    await up.wait()
    await bench.reconciler.drain()
    again = [each for each in messages(bench.fake, begin) if each != "show_version"]
    assert rises_last(again)
    assert len([each for each in again if not each.startswith("want_")]) == sum(TURNS[name]) - (
        "wireguard" in name
    )


async def test_a_handshake_in_vain_costs_turns_of_its_own(bench: Bench) -> None:
    bench.fake.model.handshakes_in_vain = 1
    before = len(bench.fake.turns)
    await bench.realise("wireguard-client")
    assert bench.fake.turns[before:] == [2, 19, 2, 3]


@pytest.mark.parametrize("name", CONNECTIONS)
async def test_whichever_message_vpp_refuses_nothing_is_left_of_the_connection(
    bench: Bench, name: str
) -> None:
    empty, begin = bench.held(), len(bench.fake.received)
    await bench.realise(name)
    sent = messages(bench.fake, begin)
    assert len(sent) == sum(TURNS[name])
    await bench.removed()
    seen: Counter[str] = Counter()
    for message in sent:
        seen[message] += 1
        bench.fake.fail(message, BUG, seen[message])
        with pytest.raises(NsmError, match=f"VPP refused {message}"):
            await bench.realise(name)
        await bench.reconciler.drain()
        assert bench.held() == empty, (message, seen[message])
        await bench.realise(name)
        await bench.removed()
        assert bench.held() == empty


@pytest.mark.parametrize("name", ["vxlan-client", "wireguard-client", "wireguard-endpoint"])
async def test_at_whichever_message_vpp_dies_the_next_one_has_nothing_and_takes_all(
    bench: Bench, name: str
) -> None:
    empty = bench.held()
    for call in range(1, sum(TURNS[name]) + 1):
        up = another_vpp(bench)
        bench.fake.die_at(call)
        with pytest.raises(NsmError, match="VPP closed its API socket"):
            await bench.realise(name)
        await bench.fake.start()
        await up.wait()
        await bench.reconciler.drain()
        assert bench.held() == empty, call
        before = len(bench.fake.turns)
        await bench.realise(name)
        assert bench.fake.turns[before:] == TURNS[name], call
        await bench.removed()
        assert bench.held() == empty, call
