"""What a client does about bad news (reference §3.7). Pure."""

from enum import Enum
from typing import Final


class Trigger(Enum):
    """News of a connection."""

    CONTROL_PLANE_LOST = "control plane lost"
    DOWN = "down"
    LIVENESS_FAILED = "liveness failed"
    REFRESH_REQUESTED = "refresh requested"


class Action(Enum):
    """What follows: the same Request again, another endpoint, or nothing."""

    REQUEST = "request"
    RESELECT = "reselect"
    WAIT = "wait"


NEEDS_DATA_PLANE: Final = frozenset({Trigger.CONTROL_PLANE_LOST, Trigger.DOWN})
"""News after which it matters whether packets still flow."""


def decide(trigger: Trigger, *, data_plane_alive: bool | None) -> Action:
    """``None`` = the data plane cannot be asked (no liveness check): then only a new endpoint is safe."""
    if trigger is Trigger.REFRESH_REQUESTED:
        return Action.REQUEST
    if trigger in NEEDS_DATA_PLANE and data_plane_alive:
        return Action.REQUEST
    return Action.RESELECT
