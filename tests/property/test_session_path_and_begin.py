"""Invariants of the path and of the begin table, whatever the order of calls."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from nsm.model.connection import Connection, ConnectionEvent, EventType, State
from nsm.session.begin import BeginTable, EntryState
from nsm.session.monitor import follow
from nsm.session.path import restore, step, trim
from nsm.session.tokens import format_rfc3339, parse_rfc3339

NAMES = st.sampled_from(["a", "b", "c", "manager", "forwarder"])


def _without_neighbours(names: list[str]) -> list[str]:
    """Adjacent hops bear different names (reference §3.1)."""
    return [name for position, name in enumerate(names) if not position or names[position - 1] != name]


def _walk(
    names: list[str], connection: Connection, new_id: Callable[[], str]
) -> tuple[Connection, list[Connection]]:
    """Out along ``names`` and back; every hop's own view, and what the first caller gets."""
    returns, views = [], []
    for name in names:
        connection, ret = step(connection, name, new_id)
        returns.append(ret)
        views.append(connection)
    for ret in reversed(returns[1:]):
        connection = restore(connection, ret)
    return connection, views


@given(st.lists(NAMES, min_size=1, max_size=12).map(_without_neighbours))
def test_a_refresh_over_the_same_hops_changes_no_id(names: list[str]) -> None:
    numbers = count()
    new_id = lambda: f"id-{next(numbers)}"  # noqa: E731
    first, views = _walk(names, Connection(id="start"), new_id)
    again, later = _walk(names, first, new_id)
    assert again == first
    assert [view.id for view in later] == [view.id for view in views]
    assert (first.id, first.route.index) == ("start", 0)
    assert len({view.id for view in views}) == len(names)
    assert trim(views[-1]) == views[-1]


@given(
    st.lists(NAMES, min_size=2, max_size=8).map(_without_neighbours),
    st.lists(NAMES, min_size=2, max_size=8).map(_without_neighbours),
)
def test_another_way_keeps_the_ids_of_the_common_beginning(before: list[str], after: list[str]) -> None:
    numbers = count()
    new_id = lambda: f"id-{next(numbers)}"  # noqa: E731
    after = [before[0], *after[1:]] if after[1:2] != before[:1] else [before[0]]
    first, _ = _walk(before, Connection(id="start"), new_id)
    second, views = _walk(after, first, new_id)
    common = 0
    while common < min(len(before), len(after)) and before[common] == after[common]:
        common += 1
    ids = [segment.id for segment in first.route.segments]
    assert [view.id for view in views[:common]] == ids[:common]
    assert second.id == "start"
    for view in views:
        assert view.route.segments[view.route.index].id == view.id


@given(st.lists(NAMES, min_size=3, max_size=8).map(_without_neighbours).filter(lambda names: len(names) > 2))
def test_every_hop_follows_its_next_hop_and_only_that(names: list[str]) -> None:
    numbers = count()
    _, views = _walk(names, Connection(id="start"), lambda: f"id-{next(numbers)}")
    full = views[-1].route
    for index in range(len(names)):
        own = replace(views[index], path=replace(full, index=index))
        for sender in range(len(names)):
            theirs = replace(views[sender], path=replace(full, index=sender), state=State.DOWN)
            followed = follow(own, ConnectionEvent(EventType.UPDATE, {theirs.id: theirs}))
            assert (followed is not None) is (sender in (index, index + 1))


@given(st.integers(min_value=0, max_value=4_000_000_000 * 10**9))
def test_times_survive_the_wire(nanoseconds: int) -> None:
    assert parse_rfc3339(format_rfc3339(nanoseconds)) == nanoseconds


STEPS = st.lists(
    st.tuples(st.sampled_from(["request", "reselect", "ok", "fail", "close"]), st.sampled_from(["x", "y"])),
    max_size=40,
)


@given(STEPS, st.booleans())
def test_the_table_knows_exactly_the_connections_that_succeeded_and_were_not_closed(
    steps: list[tuple[str, str]], client: bool
) -> None:
    table = BeginTable(client=client)
    live: set[str] = set()
    asked: set[str] = set()
    for kind, key in steps:
        connection = Connection(id=key)
        if kind in ("request", "reselect"):
            state = State.RESELECT_REQUESTED if kind == "reselect" else State.UP
            admission = table.on_request(key, replace(connection, state=state))
            assert admission.is_refresh == (key in live and kind == "request")
            assert admission.must_close_first == (key in live and kind == "reselect")
            if admission.must_close_first and not client:
                live.discard(key)
            asked.add(key)
        elif kind == "ok":
            known = table.state(key) is not EntryState.CLOSED
            assert (table.on_success(key, connection) is not None) is known
            if known:
                live.add(key)
        elif kind == "fail":
            table.on_failure(key)
        else:
            assert (table.on_close(key) is not None) is (key in live)
            live.discard(key)
        assert {one.id for one in table.connections()} == live
        assert len(table) <= len(asked)
