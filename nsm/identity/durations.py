"""Lifetimes as people write them: ``90s``, ``1h30m``, ``365d``, ``10y``."""

import re
from typing import Final

from nsm.identity.errors import IdentityError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 365 * 86400}
_PART: Final = re.compile(r"(\d+)([smhdy])", re.ASCII)


def seconds(text: object) -> float:
    """Seconds above zero; a bare number is seconds already. IdentityError on anything else."""
    if isinstance(text, int | float) and not isinstance(text, bool) and text > 0:
        return float(text)
    parts = _PART.findall(text) if isinstance(text, str) else []
    total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if not parts or "".join(number + unit for number, unit in parts) != text or not total:
        raise IdentityError(f"expected a duration above zero like 90s, 1h30m, 365d or 10y, got {text!r}")
    return float(total)
