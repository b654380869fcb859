import pytest

from nsm.session.heal import Action, Trigger, asks_liveness, decide


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
