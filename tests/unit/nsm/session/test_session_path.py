from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Token
from nsm.model.path import Path, PathSegment
from nsm.session.path import (
    MAX_SEGMENTS,
    MAX_TOKEN_BYTES,
    Return,
    check_path,
    put_metrics,
    put_tokens,
    restore,
    step,
    trim,
)


def ids() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"new-{next(numbers)}"


def path(*names: str, index: int) -> Connection:
    """A connection on segment ``index``; the segment called ``x`` has the id ``id-x``."""
    segments = tuple(PathSegment(name=name, id=f"id-{name}") for name in names)
    return Connection(id=segments[index].id, path=Path(index, segments))


def names(connection: Connection) -> list[tuple[str, str]]:
    return [(segment.name, segment.id) for segment in connection.route.segments]


def test_the_first_hop_starts_the_path_with_the_connections_id() -> None:
    stepped, ret = step(Connection(id="c-0"), "client", ids())
    assert names(stepped) == [("client", "c-0")]
    assert (stepped.id, stepped.route.index, ret) == ("c-0", 0, Return("c-0", 0, 0))


def test_the_first_hop_makes_an_id_when_there_is_none() -> None:
    stepped, _ = step(Connection(), "client", ids())
    assert (stepped.id, names(stepped)) == ("new-1", [("client", "new-1")])


def test_a_new_hop_is_appended_with_a_new_id() -> None:
    stepped, ret = step(path("client", index=0), "manager", ids())
    assert names(stepped) == [("client", "id-client"), ("manager", "new-1")]
    assert (stepped.id, stepped.route.index) == ("new-1", 1)
    assert ret == Return("id-client", 0, 1)


def test_a_refresh_finds_its_segment_and_keeps_the_id_and_the_rest() -> None:
    stepped, _ = step(path("client", "manager", "nse", index=0), "manager", ids())
    assert names(stepped) == [("client", "id-client"), ("manager", "id-manager"), ("nse", "id-nse")]
    assert stepped.id == "id-manager"


def test_a_segment_of_another_name_is_taken_over_with_a_new_id_and_the_rest_is_kept() -> None:
    stepped, _ = step(path("client", "old", "nse", index=0), "manager", ids())
    assert names(stepped) == [("client", "id-client"), ("manager", "new-1"), ("nse", "id-nse")]


def test_the_client_half_of_a_process_shares_the_segment_of_its_server_half() -> None:
    stepped, ret = step(replace(path("client", "manager", index=1), id="anything"), "manager", ids())
    assert (stepped.id, stepped.route.index, ret.index) == ("id-manager", 1, 1)


def test_a_path_may_pass_the_same_hop_several_times() -> None:
    make = ids()
    connection, _ = step(Connection(id="c"), "client", make)
    for name in ("manager", "forwarder", "manager", "forwarder", "nse"):
        connection, _ = step(connection, name, make)
    assert [name for name, _ in names(connection)] == [
        "client", "manager", "forwarder", "manager", "forwarder", "nse",
    ]  # fmt: skip
    assert len({identity for _, identity in names(connection)}) == 6


@pytest.mark.parametrize(
    ("connection", "field"),
    [
        (replace(path("client", index=0), id="other"), "connection.id"),
        (
            replace(path("client", index=0), path=Path(1, (PathSegment("client", "id-client"),))),
            "connection.path.index",
        ),
        (
            path(*(f"hop{number}" for number in range(MAX_SEGMENTS)), index=MAX_SEGMENTS - 1),
            "connection.path.path_segments",
        ),
    ],
)
def test_a_step_that_cannot_be_names_the_field(connection: Connection, field: str) -> None:
    with pytest.raises(NsmError) as caught:
        step(connection, "manager", ids())
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)


def test_restore_gives_the_callers_place_back() -> None:
    stepped, ret = step(path("client", index=0), "manager", ids())
    answer = restore(stepped, ret)
    assert (answer.id, answer.route.index) == ("id-client", 0)
    assert names(answer) == names(stepped)


@pytest.mark.parametrize(
    ("segments", "field"),
    [
        ((), "connection.path.path_segments"),
        ((PathSegment("client", "other"),), "connection.path.path_segments[0].id"),
    ],
)
def test_restore_refuses_an_answer_that_lost_the_callers_segment(
    segments: tuple[PathSegment, ...], field: str
) -> None:
    with pytest.raises(NsmError) as caught:
        restore(Connection(path=Path(0, segments)), Return("id-client", 0, 1))
    assert caught.value.field == field


def test_trim_cuts_what_follows_our_own_segment() -> None:
    connection = path("client", "nse", "stale", index=1)
    assert names(trim(connection)) == [("client", "id-client"), ("nse", "id-nse")]
    assert trim(trim(connection)) is not None
    short = path("client", "nse", index=1)
    assert trim(short) is short


def test_both_tokens_are_written_each_with_its_expiry() -> None:
    connection = put_tokens(path("client", "manager", index=1), Token("theirs", 5), Token("ours", 7))
    client, manager = connection.route.segments
    assert (client.token, client.expires, manager.token, manager.expires) == ("theirs", 5, "ours", 7)


@pytest.mark.parametrize(
    "kept", [("theirs", 5, "ours", 7), ("theirs", 5, "older", 7), ("theirs", 4, "ours", 7)]
)
def test_only_tokens_that_differ_are_written_anew(kept: tuple[str, int, str, int]) -> None:
    theirs, ours = Token("theirs", 5), Token("ours", 7)
    arrived = put_tokens(path("client", "manager", index=1), Token(*kept[:2]), Token(*kept[2:]))
    written = put_tokens(arrived, theirs, ours)
    assert [(segment.token, segment.expires) for segment in written.route.segments] == [
        ("theirs", 5),
        ("ours", 7),
    ]
    assert (written is arrived) == (kept == ("theirs", 5, "ours", 7))


def test_a_missing_token_leaves_the_segment_as_it_arrived() -> None:
    before = path("client", "manager", index=1)
    assert put_tokens(before, None, None) == before
    assert put_tokens(path("client", index=0), Token("theirs", 5), None) == path("client", index=0)


def test_metrics_are_merged_into_our_own_segment() -> None:
    once = put_metrics(path("client", "manager", index=1), {"a": "1", "b": "1"})
    twice = put_metrics(once, {"b": "2"})
    assert twice.route.segments[1].metrics == {"a": "1", "b": "2"}
    assert twice.route.segments[0].metrics == {}


def test_check_path_accepts_what_a_first_hop_sends() -> None:
    check_path(Connection(id="c"))
    check_path(path("client", index=0))


@pytest.mark.parametrize(
    ("route", "field"),
    [
        (Path(0, (PathSegment(),) * (MAX_SEGMENTS + 1)), "connection.path.path_segments"),
        (Path(2, (PathSegment(), PathSegment())), "connection.path.index"),
        (Path(1, ()), "connection.path.index"),
        (
            Path(0, (PathSegment(), PathSegment(token="ä" * (MAX_TOKEN_BYTES // 2 + 1)))),
            "connection.path.path_segments[1].token",
        ),
    ],
)
def test_check_path_names_what_no_hop_sends(route: Path, field: str) -> None:
    with pytest.raises(NsmError) as caught:
        check_path(Connection(path=route))
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)
