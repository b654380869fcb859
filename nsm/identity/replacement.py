"""A new root for a trust domain that is in use: trusted first, then signing, and the old one goes when it is unused.

The next root waits in a file of its own beside the authority's. Each step writes that one first and the authority
second (or removes it last), so a step that was interrupted is completed by running it again.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final

from nsm.identity.authority import Authority, create_authority, load_authority, save_authority
from nsm.identity.errors import IdentityError

STEPS: Final = {
    "prepare": "the next root is trusted too",
    "activate": "the new root signs, the old one is still trusted",
    "finish": "the old root is trusted no more",
}
"""What each step does, in their order."""


def replace_root(path: Path, step: str, *, ttl: float, now: float) -> Authority:
    """Take a step for the authority of the file ``path``; ``ttl`` (seconds) is the life of the new root.

    Raises:
        IdentityError: no root, a step out of order, or a file that cannot be read or written; nothing has changed.
    """
    authority = load_authority(path)
    if not authority.is_root:
        raise IdentityError(
            f"{path}: holds the intermediate authority of {authority.node!r};"
            " run `nsm-identity rotate-ca` where `init` ran"
        )
    take = {"prepare": _prepare, "activate": _activate, "finish": _finish}[step]
    return take(path, authority, ttl, now)


def next_file(path: Path) -> Path:
    """Where the next root waits until it signs; it holds a private key as ``path`` does."""
    return path.with_name(f"{path.name}.next")


def _prepare(path: Path, authority: Authority, ttl: float, now: float) -> Authority:
    waiting = next_file(path)
    if not waiting.exists():
        if authority.other_roots:
            raise IdentityError(f"{path}: the last replacement is not over: rotate-ca finish comes first")
        save_authority(waiting, create_authority(authority.trust_domain, ttl, now))
    prepared = replace(authority, other_roots=load_authority(waiting).chain)
    save_authority(path, prepared)
    return prepared


def _activate(path: Path, authority: Authority, _ttl: float, _now: float) -> Authority:
    waiting = next_file(path)
    if not waiting.exists():
        raise IdentityError(f"{waiting}: there is no next root: rotate-ca prepare comes first")
    new = load_authority(waiting)
    if new.chain != authority.chain:
        if authority.other_roots != new.chain:
            raise IdentityError(f"{path}: does not trust the next root yet: rotate-ca prepare comes first")
        authority = replace(new, other_roots=authority.chain)
        save_authority(path, authority)
    waiting.unlink()
    return authority


def _finish(path: Path, authority: Authority, _ttl: float, _now: float) -> Authority:
    if next_file(path).exists():
        raise IdentityError(
            f"{next_file(path)}: the next root does not sign yet: rotate-ca activate comes first"
        )
    if not authority.other_roots:
        raise IdentityError(f"{path}: no other root is trusted; nothing to finish")
    finished = replace(authority, other_roots=())
    save_authority(path, finished)
    return finished
