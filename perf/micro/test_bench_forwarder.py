"""Planner and VPP packers: what the forwarder does for every connection."""

from dataclasses import dataclass

from pytest_benchmark.fixture import BenchmarkFixture

from forwarder_vpp.dataplane.contract.items import Item, Key, Present
from forwarder_vpp.dataplane.vpp.codec import REQUEST, spec_of
from forwarder_vpp.dataplane.vpp.frames import HEADER, Frames
from forwarder_vpp.dataplane.vpp.messages.l2 import L2Xconnect
from forwarder_vpp.planner.plan import make_plan

CONNECTIONS = 250
"""Four items each: a thousand."""


@dataclass(frozen=True, slots=True)
class Thing:
    """An item of the planner's eyes: a key, what it needs, a fact."""

    name: str
    requires: tuple[Key, ...] = ()
    fact: int = 0

    @property
    def key(self) -> Key:
        """Its key."""
        return Key("thing", self.name)


def items(number: int) -> list[Thing]:
    """One connection: two links, a cross-connect on both, the link's configuration."""
    near, far = Thing(f"near-{number}"), Thing(f"far-{number}")
    ends = (near.key, far.key)
    return [near, far, Thing(f"cross-{number}", ends), Thing(f"config-{number}", ends[:1])]


def state(connections: int) -> dict[Key, Item]:
    """The items of so many connections."""
    return {item.key: item for number in range(connections) for item in items(number)}


def present(wanted: dict[Key, Item]) -> dict[Key, Present]:
    """All of them there."""
    return {key: Present(key, item, handle=1) for key, item in wanted.items()}


def never(_old: Item, _new: Item) -> bool:
    return False


def test_plan_everything_where_all_is_right(benchmark: BenchmarkFixture) -> None:
    wanted = state(CONNECTIONS)
    there = present(wanted)
    assert benchmark(lambda: make_plan(wanted, there, wanted, never)).is_empty


def test_plan_a_thousand_items_from_nothing(benchmark: BenchmarkFixture) -> None:
    wanted = state(CONNECTIONS)
    plan = benchmark(lambda: make_plan(wanted, {}, wanted, never))
    assert sum(len(batch) for batch in plan.create) == 4 * CONNECTIONS


def test_plan_one_connection_among_a_thousand_items(benchmark: BenchmarkFixture) -> None:
    wanted = state(CONNECTIONS)
    there = present(state(CONNECTIONS - 1))
    scope = tuple(item.key for item in items(CONNECTIONS - 1))
    plan = benchmark(lambda: make_plan(wanted, there, scope, never))
    assert sum(len(batch) for batch in plan.create) == 4


def test_pack_a_message_for_vpp(benchmark: BenchmarkFixture) -> None:
    message = L2Xconnect(rx_sw_if_index=1, tx_sw_if_index=2, enable=True)
    spec = spec_of(message)
    assert spec.kind == REQUEST
    assert len(benchmark(spec.layout.pack, message)) == spec.layout.size


def test_split_a_hundred_frames_of_one_read(benchmark: BenchmarkFixture) -> None:
    chunk = (HEADER.pack(0, 10, 0) + bytes(10)) * 100
    assert len(benchmark(lambda: list(Frames().feed(chunk)))) == 100
