"""Takes tokens out of what is shown of a message; of each stays whose it is and for whom.

Neither is a secret, and both are what one looks for when a policy denied something.
"""

import base64
import json
import re
from collections.abc import Iterable
from typing import Any, Final

from nsm.session.tokens import TOKEN_KEY

REMOVED: Final = "(token removed)"
_TOKEN_NAMES: Final = frozenset({"token", TOKEN_KEY})
_JWT: Final = re.compile(r"eyJ[\w-]*\.[\w-]+\.?[\w-]*")
_SPIFFE_ID: Final = re.compile(r"spiffe://[\w.-]{1,255}(/[\w.-]{1,255}){1,16}", re.ASCII)


def clean(value: Any) -> Any:
    """A message or metadata without tokens: of each stays whose it is and for whom."""
    if isinstance(value, str):
        return without_tokens(value)
    if isinstance(value, dict):
        return {
            key: label(inner) if key in _TOKEN_NAMES and isinstance(inner, str) else clean(inner)
            for key, inner in value.items()
        }
    return [clean(inner) for inner in value] if isinstance(value, list) else value


def metadata_of(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Metadata without tokens; what is not text is told by its size."""
    return {
        str(key): label(value) if key in _TOKEN_NAMES else without_tokens(value)
        for key, value in (
            (key, value if isinstance(value, str) else f"({len(value)} bytes)") for key, value in pairs
        )
    }


def label(token: str) -> str:
    """What may be shown of a token: its subject and its audience, unverified; nothing if it is none."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        subject, audience = claims["sub"], claims.get("aud")
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return REMOVED if token else ""
    return f"(token of {_id(subject)} for {' and '.join(map(_id, audience)) if audience else 'nobody'})"


def _id(text: object) -> str:
    return text if isinstance(text, str) and _SPIFFE_ID.fullmatch(text) else "?"


def without_tokens(text: str) -> str:
    """A text with a label in the place of everything that looks like a token."""
    return _JWT.sub(lambda found: label(found[0]), text)
