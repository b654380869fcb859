"""The caller's path token as gRPC request metadata (reference §3.2, traps 53 and 54)."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from nsm.model.errors import invalid
from nsm.model.identity import Token
from nsm.session.path import MAX_TOKEN_BYTES

TOKEN_KEY: Final = "nsm-client-token"  # noqa: S105 - the name of the key, no secret
EXPIRES_KEY: Final = "nsm-client-token-expires"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND_NS: Final = 1_000_000_000
_CACHED: Final = 1024
"""Times remembered each way: a token comes with many calls."""
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def read_token_metadata(metadata: Iterable[tuple[str, str]]) -> Token | None:
    """The caller's token, or ``None`` when it counts as missing.

    Each of the two keys must occur exactly once and the expiry must be RFC 3339, as upstream has it.

    Raises:
        NsmError: INVALID_ARGUMENT for a token of more than ``MAX_TOKEN_BYTES`` bytes.
    """
    texts: list[str] = []
    expiries: list[str] = []
    for key, value in metadata:
        if key == TOKEN_KEY:
            texts.append(value)
        elif key == EXPIRES_KEY:
            expiries.append(value)
    if len(texts) != 1 or len(expiries) != 1:
        return None
    size = len(texts[0].encode())
    if size > MAX_TOKEN_BYTES:
        raise invalid(f"metadata {TOKEN_KEY}", f"at most {MAX_TOKEN_BYTES} bytes", size)
    expires = parse_rfc3339(expiries[0])
    return None if expires is None or not texts[0] else Token(texts[0], expires)


def token_metadata(token: Token) -> tuple[tuple[str, str], ...]:
    """The metadata pairs that carry ``token``; they go with every RPC, streams included."""
    return ((TOKEN_KEY, token.text), (EXPIRES_KEY, format_rfc3339(token.expires)))


@lru_cache(_CACHED)
def parse_rfc3339(text: str) -> int | None:
    """Unix nanoseconds of an RFC 3339 time with zone, ``None`` if it is not one; finer digits are cut."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = match.groups()[6:]
    try:
        zone = timezone(timedelta(hours=int(zone_hours or 0), minutes=int(zone_minutes or 0)))
        naive_utc = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    offset = zone.utcoffset(None) or timedelta()
    seconds = (naive_utc - _EPOCH) // timedelta(seconds=1)
    seconds += (1 if sign == "-" else -1) * (offset // timedelta(seconds=1))
    return seconds * _SECOND_NS + int(((fraction or "") + "000000000")[:9])


@lru_cache(_CACHED)
def format_rfc3339(nanoseconds: int) -> str:
    """An RFC 3339 UTC time of Unix ``nanoseconds``, the fraction only as long as needed."""
    seconds, rest = divmod(nanoseconds, _SECOND_NS)
    moment = _EPOCH + timedelta(seconds=seconds)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}{fraction}Z"
