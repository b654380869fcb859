"""When to refresh and when to close, for connections (reference §3.5) and registrations (reference §3.13).

Model times are Unix nanoseconds; everything computed here is in seconds unless it says otherwise.
"""

import math
from typing import Final

from nsm.model.errors import Code, NsmError
from nsm.model.path import Path

_SECOND_NS: Final = 1_000_000_000

RETRY_DELAY: Final = 0.2
"""Seconds between tries of a failed refresh or registration (reference §3.5, §3.13)."""

REQUEST_TIMEOUT: Final = 15.0
"""Deadline of a Request in seconds: longer than a token lives would mean closed at once (trap 8)."""


UNREGISTER_SHARE: Final = 1 / 6
"""Half of what is left when a registration is refreshed: whoever comes back in time is never dropped before."""


def refresh_delay(path: Path, now: float) -> float:
    """Seconds until the client refreshes, 0 = at once; ``now`` in Unix seconds.

    The earliest expiry of any segment counts, scaled to 0.2-0.4 of what is left (0.2 for the outermost
    client, 1/3 on a path of one segment), so that outer clients refresh before inner ones. A segment without
    an expiry says nothing (upstream reads it as 1970 and would refresh without pause); none at all means 0.
    """
    expiries = [segment.expires for segment in path.segments if segment.expires is not None]
    if not expiries:
        return 0.0
    count = len(path.segments)
    scale = 0.2 + 0.2 * path.index / count if count > 1 else 1 / 3
    return max(0.0, (min(expiries) / _SECOND_NS - now) * scale)


def close_time(path: Path, now: float, remaining: float | None) -> float:
    """Unix seconds at which a server closes a connection nobody refreshed; never before ``now``.

    ``remaining`` is what was left of the Request's deadline when it arrived, ``None`` = no deadline: the
    Close may take as long as the Request might have, and is over when the caller's token expires.

    Raises:
        NsmError: FAILED_PRECONDITION when the previous segment carries no expiry (trap 7).
    """
    previous = path.previous
    if previous is None or previous.expires is None:
        field = (
            f"connection.path.path_segments[{path.index - 1}].expires"
            if path.index
            else "connection.path.index"
        )
        raise NsmError(
            Code.FAILED_PRECONDITION,
            "the caller's segment has no expiry: send nsm-client-token and nsm-client-token-expires",
            field=field,
        )
    return max(now, previous.expires / _SECOND_NS - (remaining or 0.0))


def registration_refresh_delay(expiration: int | None, now: float) -> float:
    """Seconds until an endpoint registers again: 2/3 of what is left; ``inf`` without an expiration (ns)."""
    if expiration is None:
        return math.inf
    return max(0.0, (expiration / _SECOND_NS - now) * 2 / 3)


def registration_expiry(
    own: int | None, caller: int | None, now: float, default: float, requested: int | None
) -> int:
    """When a registration ends, in Unix nanoseconds: the earliest of all that is known.

    ``own`` and ``caller`` are the expiries of the two tokens (ns), ``default`` a lifetime in seconds,
    ``requested`` the field as it arrived (ns): an earlier one is kept, so clients clear it first (trap 29).
    """
    bounds = [round((now + default) * _SECOND_NS)]
    bounds += [bound for bound in (own, caller, requested) if bound is not None]
    return min(bounds)


def unregister_time(expiration: int, now: float, remaining: float | None) -> float:
    """Unix seconds at which a registry drops a registration nobody refreshed (reference §3.13).

    ``remaining`` as for ``close_time``, but no more than UNREGISTER_SHARE of the time that is left: the deadline
    says how long the caller's token lives, which may be longer than ours, or than a registration does (trap 8).
    """
    end = expiration / _SECOND_NS
    return max(now, end - min(remaining or 0.0, (end - now) * UNREGISTER_SHARE))
