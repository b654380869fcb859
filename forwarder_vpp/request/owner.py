"""Whose an object of the dataplane is (design §4, ownership)."""

import hashlib
from functools import lru_cache


@lru_cache(4096)
def owner_of(instance: str, connection_id: str) -> str:
    """The owner of a connection's objects: versioned, 29 characters, so that a role fits behind it in 63."""
    digest = hashlib.sha256(f"{instance}\0{connection_id}".encode()).hexdigest()
    return f"nsm1-{digest[:24]}"
