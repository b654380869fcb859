"""The ownership tag of an interface in VPP: the owner, and which end of the connection it is."""

from typing import Final

OWNED: Final = "nsm"
"""What every owner begins with; interfaces with another tag or none are not ours."""

CLIENT: Final = "c"
ENDPOINT: Final = "e"
UPLINK: Final = "u"
READY: Final = "r"
"""The interface of a pair that waits for a connection (``pool.py``): nobody's but the pool's."""

_LIMIT = 63  # VPP cuts longer tags without a word (reference §6.4)


def tag_of(owner: str, role: str) -> str:
    """``owner/role``. ValueError: longer than VPP keeps."""
    tag = f"{owner}/{role}"
    if len(tag) > _LIMIT:
        raise ValueError(f"expected a tag of at most {_LIMIT} characters, got {tag!r}")
    return tag


def owner_of(tag: str) -> str:
    """The owner in ``tag``, empty for a foreign interface."""
    owner, slash, _ = tag.rpartition("/")
    return owner if slash and tag.startswith(OWNED) else ""


def role_of(tag: str) -> str:
    """The role in ``tag``, empty for a foreign interface."""
    return tag.rpartition("/")[2] if owner_of(tag) else ""
