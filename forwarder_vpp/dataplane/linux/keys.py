"""WireGuard keys as text (base64, as everybody writes them) and as bytes."""

import base64
from typing import Final

_BYTES: Final = 32


def key_bytes(key: str) -> bytes:
    """A key in base64 as bytes; ValueError if it is not 32 of them."""
    raw = base64.b64decode(key, validate=True)
    if len(raw) != _BYTES:
        raise ValueError(f"expected {_BYTES} bytes in base64")
    return raw


def key_text(raw: bytes) -> str:
    """A key as the model has it."""
    return base64.b64encode(raw).decode()
