import pytest

from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError
from nsm.session.heal import LOOK_EVERY, Action, Trigger, asks_liveness, decide, is_absence, looks_for_another


@pytest.mark.parametrize(
    ("trigger", "is_alive", "action"),
    [
        (Trigger.CONTROL_PLANE_LOST, True, Action.REQUEST),
        (Trigger.CONTROL_PLANE_LOST, False, Action.RESELECT),
        (Trigger.CONTROL_PLANE_LOST, None, Action.RESELECT),
        (Trigger.DOWN, True, Action.REQUEST),
        (Trigger.DOWN, False, Action.RESELECT),
        (Trigger.DOWN, None, Action.RESELECT),
        (Trigger.LIVENESS_FAILED, False, Action.RESELECT),
        (Trigger.LIVENESS_FAILED, None, Action.RESELECT),
        (Trigger.LIVENESS_FAILED, True, Action.WAIT),
        (Trigger.ENDPOINT_GONE, None, Action.RESELECT),
        (Trigger.ENDPOINT_GONE, True, Action.RESELECT),
        (Trigger.REFRESH_REQUESTED, None, Action.REQUEST),
        (Trigger.REFRESH_REQUESTED, False, Action.REQUEST),
    ],
)
def test_what_follows_from_what(trigger: Trigger, is_alive: bool | None, action: Action) -> None:
    assert decide(trigger, is_alive) is action


def test_only_bad_news_of_the_control_plane_asks_the_data_path() -> None:
    assert {trigger for trigger in Trigger if asks_liveness(trigger)} == {
        Trigger.CONTROL_PLANE_LOST,
        Trigger.DOWN,
    }


@pytest.mark.parametrize(
    ("code", "field", "looks"),
    [
        (Code.UNAVAILABLE, ENDPOINT_FIELD, [1, 1 + LOOK_EVERY]),
        (Code.NOT_FOUND, ENDPOINT_FIELD, [LOOK_EVERY, 2 * LOOK_EVERY]),
        (Code.INVALID_ARGUMENT, ENDPOINT_FIELD, []),
        (Code.UNAVAILABLE, "", []),
        (Code.NOT_FOUND, "connection.network_service", []),
    ],
)
def test_another_endpoint_is_looked_for_when_the_endpoint_itself_is_absent(
    code: Code, field: str, looks: list[int]
) -> None:
    error = NsmError(code, "gone", field=field)
    assert is_absence(error) is bool(looks)
    found = [count for count in range(1, 2 * LOOK_EVERY + 1) if looks_for_another(error, count)]
    assert found == looks
