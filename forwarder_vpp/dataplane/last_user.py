"""Locks for a setting of the whole machine that several processes change together: the last of them puts it back.

Its users hold a shared lock on one file, which also keeps what was there before. The locks of a process that dies go
with it, the file stays, and so the next user can put right what the dead one left.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def gate(lock: Path) -> Iterator[None]:
    """One user of ``lock`` comes or goes at a time; held for some microseconds. OSError: we may not."""
    path = gate_of(lock)
    held = _locked(path)
    while not _is_at(held, path):  # the one before us removed it
        os.close(held)
        held = _locked(path)
    try:
        yield
    finally:
        os.close(held)


def gate_of(lock: Path) -> Path:
    """The gate's own file; only who is inside may remove it."""
    return lock.with_name(f"{lock.name}.gate")


def alone(descriptor: int) -> bool:
    """Whether nobody else holds the lock; then it is ours alone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
