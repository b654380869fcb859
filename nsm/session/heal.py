"""What a client does when something tells it that its connection may be broken (reference §3.7).

Only the outermost client heals; every hop between only passes the news on.
"""

from enum import Enum
from typing import Final

from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError

LOOK_EVERY: Final = 5
"""Failed Requests between two looks for another endpoint: a second at the pace of refreshes that fail."""


class Trigger(Enum):
    """Why the client looks at its connection again."""

    CONTROL_PLANE_LOST = "control plane lost"
    """The monitor stream of the next hop broke, other than by CANCELLED."""
    DOWN = "down"
    """An event gave state DOWN, or the connection was deleted."""
    LIVENESS_FAILED = "liveness failed"
    """The data path is silent."""
    ENDPOINT_GONE = "endpoint gone"
    """The hop before the endpoint found nobody there, and its service has another one."""
    REFRESH_REQUESTED = "refresh requested"
    """An event asked for a Request, the connection itself being well."""


class Action(Enum):
    """What follows."""

    WAIT = "wait"
    """Nothing: the next refresh is soon enough."""
    REQUEST = "request"
    """A plain Request: same path, same endpoint; it puts right what a hop lost and cuts nothing."""
    RESELECT = "reselect"
    """Close, then a Request for any endpoint (``nsm.session.begin.reselect``)."""


def asks_liveness(trigger: Trigger) -> bool:
    """Whether the answer depends on the data path: only bad news of the control plane does."""
    return trigger in (Trigger.CONTROL_PLANE_LOST, Trigger.DOWN)


def decide(trigger: Trigger, is_alive: bool | None) -> Action:
    """What to do about ``trigger``; ``is_alive``: what the liveness check says, ``None`` = there is none.

    Bad news of the control plane alone is no reason to cut a connection that carries packets, so a living one is
    requested again as it is. Without a check nobody knows, and only another endpoint is sure to help.
    """
    if trigger is Trigger.REFRESH_REQUESTED:
        return Action.REQUEST
    if trigger is Trigger.ENDPOINT_GONE:
        return Action.RESELECT
    if trigger is Trigger.LIVENESS_FAILED:
        return Action.WAIT if is_alive else Action.RESELECT
    return Action.REQUEST if is_alive else Action.RESELECT


def is_absence(error: NsmError) -> bool:
    """Whether a Request failed because the endpoint itself is not there."""
    return error.field == ENDPOINT_FIELD and error.code in (Code.UNAVAILABLE, Code.NOT_FOUND)


def looks_for_another(error: NsmError, absences: int) -> bool:
    """Whether to look for another endpoint after so many Requests in a row that failed by ``is_absence``, 1 or more.

    At once where nobody listens on its socket. One that is not registered is waited for a while: a registry that has
    just started knows nobody yet, and the connection carries packets. Without another one nothing is given up.
    """
    return is_absence(error) and absences % LOOK_EVERY == (1 if error.code is Code.UNAVAILABLE else 0)
