"""Any state to any state, with a crash at any step, leaves the wanted state (design §8)."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from forwarder_vpp.dataplane.contract.items import Item, Key, Present
from forwarder_vpp.planner.levels import levels
from forwarder_vpp.planner.plan import Plan, make_plan


@dataclass(frozen=True, slots=True)
class Thing:
    """``fixed`` cannot be changed in place, ``loose`` can."""

    name: str
    requires: tuple[Key, ...] = ()
    fixed: int = 0
    loose: int = 0

    @property
    def key(self) -> Key:
        return Key("thing", self.name)


def updatable(old: Item, new: Item) -> bool:
    assert isinstance(old, Thing)
    assert isinstance(new, Thing)
    return (old.fixed, old.requires) == (new.fixed, new.requires)


@st.composite
def states(draw: st.DrawFn) -> dict[Key, Item]:
    """A state is closed: what a thing requires is there; requirements go to lower numbers, so never in a circle."""
    state: dict[Key, Item] = {}
    for number in range(8):
        if not draw(st.booleans()):
            continue
        needs = tuple(key for key in state if draw(st.integers(0, 3)) == 0)
        thing = Thing(str(number), needs, draw(st.integers(0, 1)), draw(st.integers(0, 1)))
        state[thing.key] = thing
    return state


class World:
    """Objects that exist; refuses what a dataplane would refuse: a missing requirement, removal under a dependent."""

    def __init__(self, state: dict[Key, Item], unknown: frozenset[Key] = frozenset()) -> None:
        self.state = dict(state)
        self.unknown = set(unknown & state.keys())
        self.steps = 0

    def present(self) -> dict[Key, Present]:
        return {
            key: Present(key, None if key in self.unknown else item, handle=str(key))
            for key, item in self.state.items()
        }

    def create(self, item: Item) -> None:
        assert item.key not in self.state
        assert all(key in self.state for key in item.requires), f"{item} lacks what it requires"
        self.state[item.key] = item

    def update(self, item: Item) -> None:
        assert updatable(self.state[item.key], item)
        assert all(key in self.state for key in item.requires)
        self.state[item.key] = item

    def delete(self, key: Key) -> None:
        holders = [
            other for other, item in self.state.items() if key in item.requires and other not in self.unknown
        ]
        assert not holders, f"{key} goes while {holders} stand on it"
        del self.state[key]
        self.unknown.discard(key)


def carry_out(plan: Plan, wanted: dict[Key, Item], world: World, steps: int | None = None) -> None:
    done = 0
    for deleting, batches in ((True, plan.clear), (False, plan.create), (True, plan.prune)):
        for batch in batches:
            for key in batch:
                if steps is not None and done >= steps:
                    return
                done += 1
                if deleting:
                    world.delete(key)
                elif key in plan.update:
                    world.update(wanted[key])
                else:
                    world.create(wanted[key])


def plan_of(wanted: dict[Key, Item], world: World) -> Plan:
    return make_plan(wanted, world.present(), {**world.state, **wanted}, updatable)


@given(states(), states(), st.integers(0, 30))
def test_any_state_becomes_any_state_also_after_a_crash(
    before: dict[Key, Item], after: dict[Key, Item], crash: int
) -> None:
    world = World(before)
    carry_out(plan_of(after, world), after, world, crash)
    plan = plan_of(after, world)
    assert not plan.pending
    carry_out(plan, after, world)
    assert world.state == after
    assert plan_of(after, world).is_empty


@given(states(), states(), st.integers(0, 30))
def test_a_crashed_change_can_be_taken_back(
    before: dict[Key, Item], after: dict[Key, Item], crash: int
) -> None:
    world = World(before)
    carry_out(plan_of(after, world), after, world, crash)
    carry_out(plan_of(before, world), before, world)
    assert world.state == before


@given(states())
def test_from_a_state_to_itself_there_is_nothing_to_do(state: dict[Key, Item]) -> None:
    world = World(state)
    assert plan_of(state, world) == Plan()


@given(states(), states())
def test_nothing_goes_before_the_new_stands_unless_its_key_is_exclusive(
    before: dict[Key, Item], after: dict[Key, Item]
) -> None:
    plan = plan_of(after, World(before))
    cleared = {key for batch in plan.clear for key in batch}
    exclusive = {
        key
        for key in before.keys() & after.keys()
        if before[key] != after[key] and not updatable(before[key], after[key])
    }
    if not exclusive:
        assert not cleared
    for key in cleared - exclusive:
        assert set(before[key].requires) & cleared


@given(states())
def test_each_level_stands_on_earlier_ones_and_just_before_its_dependents(state: dict[Key, Item]) -> None:
    requires = {key: item.requires for key, item in state.items()}
    batches = levels(list(state), requires)
    place = {key: number for number, batch in enumerate(batches) for key in batch}
    assert place.keys() == state.keys()
    for key, needs in requires.items():
        assert all(place[each] < place[key] for each in needs)
    for key in state:
        dependents = [place[other] for other, needs in requires.items() if key in needs]
        assert place[key] == (min(dependents) - 1 if dependents else len(batches) - 1)


@given(states(), st.sets(st.integers(0, 7)))
def test_objects_of_unknown_facts_are_made_again(state: dict[Key, Item], numbers: set[int]) -> None:
    world = World(state, frozenset(Key("thing", str(number)) for number in numbers))
    carry_out(plan_of(state, world), state, world)
    assert world.state == state
    assert not world.unknown
