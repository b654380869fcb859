from dataclasses import replace

import pytest

from nsm.model.connection import Connection, ConnectionEvent, EventType, MonitorScopeSelector, State
from nsm.model.context import ConnectionContext
from nsm.model.path import Path, PathSegment
from nsm.session.monitor import MonitorTable, follow, matches, select


def on(index: int, *names: str, service: str = "ns") -> Connection:
    segments = tuple(
        PathSegment(name=name, id=f"id-{position}-{name}") for position, name in enumerate(names)
    )
    return Connection(id=segments[index].id, network_service=service, path=Path(index, segments))


def selector(*segments: tuple[str, str], services: tuple[str, ...] = ()) -> MonitorScopeSelector:
    return MonitorScopeSelector(tuple(PathSegment(name=name, id=id_) for name, id_ in segments), services)


PATH = on(1, "client", "mgr", "fwd", "mgr")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (selector(), True),
        (selector(services=("other", "ns")), True),
        (selector(services=("other",)), False),
        (selector(("mgr", "")), True),
        (selector(("", "id-2-fwd")), True),
        (selector(("fwd", "id-0-client")), False),
        (selector(("mgr", ""), ("fwd", "")), True),
        (selector(("fwd", ""), ("mgr", "id-3-mgr")), True),
        (selector(("client", ""), ("fwd", "")), False),
        (selector(("", ""), ("", ""), ("", ""), ("", ""), ("", "")), False),
        (selector(("mgr", ""), services=("other",)), False),
    ],
)
def test_a_selector_names_a_run_of_the_path_and_a_service(
    wanted: MonitorScopeSelector, expected: bool
) -> None:
    assert matches(wanted, PATH) is expected


def test_a_token_in_a_selector_must_match_too() -> None:
    wanted = MonitorScopeSelector((PathSegment(name="mgr", token="other"),))
    assert not matches(wanted, PATH)


def test_the_initial_event_is_there_even_when_empty() -> None:
    table = MonitorTable()
    assert table.initial(selector()) == ConnectionEvent(EventType.INITIAL_STATE_TRANSFER, {})
    table.update(PATH)
    assert table.initial(selector()).connections == {PATH.id: PATH}
    assert table.initial(selector(("", "nobody"))).connections == {}


def test_only_changes_are_events() -> None:
    table = MonitorTable()
    assert table.update(PATH) == ConnectionEvent(EventType.UPDATE, {PATH.id: PATH})
    assert table.update(PATH) is None
    down = replace(PATH, state=State.DOWN)
    assert table.update(down) == ConnectionEvent(EventType.UPDATE, {PATH.id: down})
    assert table.get(PATH.id) == down
    assert table.delete(PATH.id) == ConnectionEvent(EventType.DELETE, {PATH.id: down})
    assert table.delete(PATH.id) is None


def test_an_event_is_cut_to_what_was_selected() -> None:
    other = on(1, "client2", "mgr2")
    event = ConnectionEvent(EventType.UPDATE, {PATH.id: PATH, other.id: other})
    assert select(selector(), event) is event
    chosen = select(selector(("mgr2", "")), event)
    assert chosen is not None
    assert chosen.connections == {other.id: other}
    assert select(selector(("nobody", "")), event) is None


OWN = on(1, "client", "mgr")


def news(connection: Connection, kind: EventType = EventType.UPDATE) -> ConnectionEvent:
    return ConnectionEvent(kind, {connection.id: connection})


def test_path_context_and_state_are_followed_and_nothing_else() -> None:
    theirs = replace(
        on(2, "client", "mgr", "fwd"), context=ConnectionContext(mtu=1400), state=State.DOWN, payload="IP"
    )
    followed = follow(OWN, news(theirs))
    assert followed is not None
    assert (followed.id, followed.route.index, followed.payload) == (OWN.id, 1, "")
    assert followed.route.segments == theirs.route.segments
    assert (followed.ctx.mtu, followed.state) == (1400, State.DOWN)
    assert follow(followed, news(theirs)) is None


def test_of_an_event_that_our_last_answer_has_overtaken_only_the_state_is_followed() -> None:
    client, ours = OWN.route.segments
    own = replace(OWN, path=replace(OWN.route, segments=(client, replace(ours, token="newer"))))
    late = replace(on(2, "client", "mgr", "fwd"), context=ConnectionContext(mtu=1400))
    assert follow(own, news(late)) is None
    followed = follow(own, news(replace(late, state=State.DOWN)))
    assert followed == replace(own, state=State.DOWN)
    assert followed is not None
    assert follow(followed, news(late)) == own


def test_a_delete_counts_as_down() -> None:
    followed = follow(OWN, news(on(2, "client", "mgr", "fwd"), EventType.DELETE))
    assert followed is not None
    assert followed.state is State.DOWN


@pytest.mark.parametrize(
    "theirs",
    [
        on(0, "client"),
        on(3, "client", "mgr", "fwd", "nse"),
        on(2, "client", "other", "fwd"),
        on(0, "client", "mgr"),
    ],
)
def test_what_is_not_the_continuation_of_ours_is_ignored(theirs: Connection) -> None:
    assert follow(OWN, news(theirs)) is None


def test_the_same_name_further_along_the_path_is_somebody_else() -> None:
    later = on(3, "client", "mgr", "fwd", "mgr")
    theirs = replace(on(2, "client", "mgr", "fwd"), state=State.DOWN)
    assert follow(later, news(theirs)) is None
