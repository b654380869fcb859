"""The reconciler against the fake dataplane: realise, undo, remove, share, lose everything, adopt, quarantine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, VxlanEnd
from forwarder_vpp.dataplane.contract.items import Key
from forwarder_vpp.reconciler.reconciler import Reconciler
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import ETHERNET
from tests.fakes.fake_dataplane import FakeDataplane, FakeItem

UPLINK = {Key("port", "uplink")}


def intent(
    name: str, *, remote: str = "", mtu: int = 1500, interface: str = "nsm-1", expires: float = 0.0
) -> Intent:
    number = sum(name.encode())
    client = KernelEnd(NetnsId(1, number, number), interface, ("10.0.0.1/32",))
    if remote:
        end: KernelEnd | VxlanEnd = VxlanEnd("10.0.0.1", remote, number)
    else:
        end = KernelEnd(NetnsId(1, number + 1000, number), "nse-1", ("10.0.0.2/32",))
    return Intent(name, f"nsm1-{name}", ETHERNET, mtu, client, end, expires)


def soon() -> float:
    return asyncio.get_running_loop().time() + 10


class Bench:
    def __init__(self) -> None:
        self.plane = FakeDataplane()
        self.removed: list[str] = []
        self.reconciler = self.another()

    def another(self, quarantine: float = 600.0) -> Reconciler:
        return Reconciler(self.plane, quarantine=quarantine, on_removed=self.removed.append)

    def census(self) -> set[Key]:
        return set(self.plane.objects)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.reconciler.start([])
    yield made
    await made.reconciler.stop()


async def test_a_connection_comes_and_goes_and_nothing_stays(bench: Bench) -> None:
    assert await bench.reconciler.realise(intent("a"), soon())
    assert {item.key for item in bench.plane.items(intent("a"))} < bench.census()
    assert bench.plane.settled == ["a"]
    bench.reconciler.remove("a")
    assert not bench.removed
    await bench.reconciler.drain()
    assert bench.census() == UPLINK
    assert bench.removed == ["a"]


async def test_the_same_again_with_another_expiry_writes_nothing(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a", expires=1), soon())
    before = list(bench.plane.log)
    assert not await bench.reconciler.realise(intent("a", expires=2), soon())
    assert bench.plane.log == before
    kept = bench.reconciler.intent("a")
    assert kept is not None
    assert kept.expires == 2


@pytest.mark.parametrize("kind", ["link", "config", "cross"])
async def test_a_failed_request_leaves_nothing(bench: Bench, kind: str) -> None:
    bench.plane.errors["create", kind] = 1
    with pytest.raises(NsmError, match="planned"):
        await bench.reconciler.realise(intent("a"), soon())
    assert bench.census() == UPLINK
    assert bench.reconciler.intent("a") is None


async def test_a_failed_change_restores_what_was_committed(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a"), soon())
    before = dict(bench.plane.objects)
    bench.plane.errors["create", "cross"] = 1
    with pytest.raises(NsmError):
        await bench.reconciler.realise(intent("a", interface="nsm-2", mtu=1400), soon())
    await bench.reconciler.drain()
    assert bench.plane.objects == before
    assert bench.reconciler.intent("a") == intent("a")


async def test_a_settle_that_fails_undoes(bench: Bench) -> None:
    bench.plane.settle_error = NsmError(Code.DEADLINE_EXCEEDED, "no handshake")
    with pytest.raises(NsmError, match="no handshake"):
        await bench.reconciler.realise(intent("a"), soon())
    assert bench.census() == UPLINK


async def test_a_cancelled_request_leaves_nothing(bench: Bench) -> None:
    bench.plane.gate = asyncio.Event()
    work = asyncio.create_task(bench.reconciler.realise(intent("a"), soon()))
    for _ in range(5):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})
    assert work.cancelled()
    bench.plane.gate.set()
    await bench.reconciler.drain()
    assert bench.census() == UPLINK


async def test_shared_items_are_made_once_and_go_with_the_last(bench: Bench) -> None:
    names = [f"c{number}" for number in range(50)]
    await asyncio.gather(*(bench.reconciler.realise(intent(n, remote="10.0.0.9"), soon()) for n in names))
    port = Key("port", "4789")
    assert bench.plane.log.count(("create", port)) == 1
    for name in names[:-1]:
        bench.reconciler.remove(name)
    await bench.reconciler.drain()
    assert port in bench.census()
    bench.reconciler.remove(names[-1])
    await bench.reconciler.drain()
    assert bench.census() == UPLINK
    assert sorted(bench.removed) == sorted(names)


async def test_the_same_key_with_other_facts_is_a_conflict_for_the_later(bench: Bench) -> None:
    first = intent("a", remote="10.0.0.9")
    await bench.reconciler.realise(first, soon())
    assert isinstance(first.endpoint, VxlanEnd)
    other = replace(intent("b"), endpoint=replace(first.endpoint, remote_port=9999))
    before = dict(bench.plane.objects)
    with pytest.raises(NsmError) as caught:
        await bench.reconciler.realise(other, soon())
    assert caught.value.code is Code.ALREADY_EXISTS
    assert bench.plane.objects == before


async def test_a_removal_that_fails_is_tried_again(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a"), soon())
    bench.plane.errors["delete", "link"] = 2
    bench.reconciler.remove("a")
    await asyncio.wait_for(bench.reconciler.drain(), 10)
    assert bench.census() == UPLINK
    assert bench.removed == ["a"]


def deleted(bench: Bench, kind: str) -> int:
    return sum(1 for verb, key in bench.plane.log if verb == "delete" and key.kind == kind)


@pytest.fixture
async def fast_links() -> AsyncIterator[Bench]:
    made = Bench()
    made.plane.workload_kinds = frozenset({"config", "link"})
    made.reconciler = made.another()
    await made.reconciler.start([])
    yield made
    await made.reconciler.stop()


async def test_what_goes_along_with_another_object_is_not_removed_by_hand(fast_links: Bench) -> None:
    bench = fast_links
    await bench.reconciler.realise(intent("a"), soon())
    bench.reconciler.remove("a")
    await bench.reconciler.drain()
    assert bench.census() == UPLINK
    assert (deleted(bench, "link"), deleted(bench, "config")) == (2, 0)


async def test_what_would_go_along_is_removed_by_hand_while_the_other_object_stays(fast_links: Bench) -> None:
    bench = fast_links
    await bench.reconciler.realise(intent("a"), soon())
    bench.plane.errors["delete", "link"] = 2
    bench.reconciler.remove("a")
    await asyncio.wait_for(bench.reconciler.drain(), 10)
    assert deleted(bench, "config") == 2
    assert bench.census() == UPLINK


async def test_a_withdrawal_leaves_the_link_to_the_background_pass(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a"), soon())
    bench.plane.gates["delete", "cross"] = asyncio.Event()
    bench.reconciler.remove("a")
    await bench.reconciler.withdraw("a", soon())
    assert (deleted(bench, "link"), deleted(bench, "config")) == (0, 2)
    bench.plane.gates["delete", "cross"].set()
    await bench.reconciler.drain()
    assert bench.census() == UPLINK


async def test_the_same_id_again_before_it_is_gone(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a"), soon())
    bench.reconciler.remove("a")
    await bench.reconciler.realise(intent("a", interface="nsm-2"), soon())
    await bench.reconciler.drain()
    assert bench.reconciler.intent("a") == intent("a", interface="nsm-2")
    assert bench.census() == UPLINK | {item.key for item in bench.plane.items(intent("a"))}


async def test_everything_lost_is_made_again(bench: Bench) -> None:
    await asyncio.gather(*(bench.reconciler.realise(intent(n), soon()) for n in "abc"))
    before = dict(bench.plane.objects)
    bench.plane.die()
    with pytest.raises(NsmError) as caught:
        await bench.reconciler.realise(intent("d"), soon())
    assert caught.value.code is Code.UNAVAILABLE
    bench.plane.come_back()
    await asyncio.wait_for(bench.reconciler.drain(), 10)
    assert bench.plane.objects == before


async def test_adoption_writes_nothing_to_what_is_right(bench: Bench) -> None:
    await asyncio.gather(*(bench.reconciler.realise(intent(n), soon()) for n in "abc"))
    await bench.reconciler.stop()
    written = len(bench.plane.log)
    second = bench.another()
    await second.start([intent(n) for n in "abc"])
    assert len(bench.plane.log) == written
    assert not await second.realise(intent("a"), soon())
    assert len(bench.plane.log) == written
    await second.stop()


async def test_adoption_makes_what_is_missing_and_corrects_what_differs(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a"), soon())
    before = dict(bench.plane.objects)
    await bench.reconciler.stop()
    config = Key("config", "nsm1-a/c")
    bench.plane.objects[config] = FakeItem(config, (Key("link", "nsm1-a/c"),), None, "drifted")
    del bench.plane.objects[Key("cross", "nsm1-a")]
    second = bench.another()
    await second.start([intent("a")])
    assert bench.plane.objects == before
    await second.stop()


async def test_strangers_are_held_for_a_token_lifetime_then_go(bench: Bench) -> None:
    await bench.reconciler.realise(intent("a"), soon())
    await bench.reconciler.stop()
    before = bench.census()
    patient = bench.another()
    await patient.start([])
    await patient.drain()
    assert bench.census() == before
    await patient.stop()
    hasty = bench.another(quarantine=0.0)
    await hasty.start([])
    await hasty.drain()
    assert bench.census() == UPLINK
    await hasty.stop()
