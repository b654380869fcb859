import math

import pytest

from nsm.model.errors import Code, NsmError
from nsm.model.path import Path, PathSegment
from nsm.session.timing import (
    close_time,
    refresh_delay,
    registration_expiry,
    registration_refresh_delay,
    unregister_time,
)

S = 1_000_000_000


def path(*expires: int | None, index: int) -> Path:
    return Path(index, tuple(PathSegment(expires=None if e is None else e * S) for e in expires))


def test_the_outermost_client_refreshes_after_a_fifth() -> None:
    assert refresh_delay(path(700, 700, 700, 700, index=0), now=100) == pytest.approx(120)


def test_inner_clients_refresh_later_and_a_lone_segment_after_a_third() -> None:
    assert refresh_delay(path(700, 700, index=1), now=100) == pytest.approx(180)
    assert refresh_delay(path(700, index=0), now=100) == pytest.approx(200)


def test_the_earliest_expiry_counts_and_a_missing_one_says_nothing() -> None:
    assert refresh_delay(path(700, 200, None, index=0), now=100) == pytest.approx(20)


def test_no_expiry_or_a_past_one_means_at_once() -> None:
    assert refresh_delay(path(None, None, index=0), now=100) == 0
    assert refresh_delay(path(50, 60, index=0), now=100) == 0


def test_a_server_closes_when_the_callers_token_ends_less_the_deadline() -> None:
    assert close_time(path(700, 900, index=1), now=100, remaining=15) == 685
    assert close_time(path(700, 900, index=1), now=100, remaining=None) == 700


def test_a_deadline_longer_than_the_token_closes_at_once() -> None:
    assert close_time(path(700, 900, index=1), now=100, remaining=3600) == 100


@pytest.mark.parametrize(
    ("route", "field"),
    [
        (path(None, 900, index=1), "connection.path.path_segments[0].expires"),
        (path(900, index=0), "connection.path.index"),
    ],
)
def test_no_expiry_of_the_caller_is_refused(route: Path, field: str) -> None:
    with pytest.raises(NsmError) as caught:
        close_time(route, now=100, remaining=15)
    assert (caught.value.code, caught.value.field) == (Code.FAILED_PRECONDITION, field)


def test_registrations() -> None:
    assert registration_refresh_delay(None, 100) == math.inf
    assert registration_refresh_delay(400 * S, 100) == pytest.approx(200)
    assert registration_refresh_delay(50 * S, 100) == 0
    assert unregister_time(400 * S, 100, 15) == 385
    assert unregister_time(400 * S, 100, None) == 400
    assert unregister_time(50 * S, 100, 15) == 100


@pytest.mark.parametrize("remaining", [0.1, 2.5, 15.0, 120.0])
@pytest.mark.parametrize("left", [1, 5, 10, 60])
def test_a_registration_is_not_dropped_before_its_refresh_is_due(left: int, remaining: float) -> None:
    """The deadline of a call is of its caller's token, which may live longer than the registry's own."""
    end = (100 + left) * S
    refreshed = 100 + registration_refresh_delay(end, 100)
    assert unregister_time(end, 100, remaining) - refreshed >= left / 6 - 1e-6


def test_a_registration_ends_at_the_earliest_of_all() -> None:
    assert registration_expiry(None, None, 100, 60, None) == 160 * S
    assert registration_expiry(150 * S, 140 * S, 100, 60, None) == 140 * S
    assert registration_expiry(150 * S, 140 * S, 100, 60, 120 * S) == 120 * S
    assert registration_expiry(150 * S, None, 100, 60, 900 * S) == 150 * S
