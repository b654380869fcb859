"""Room for hundreds of wireguard-go: each holds an inotify instance, and Linux allows a user 128 in all by default.

The limit is the machine's, so it is raised only while an agent has tunnels of this kind, and the last such agent puts
back what was there before. Its tunnels outlive it: for each that still runs the limit stays one higher, so that
nobody else has less than before; the next agent's end (or ``nsmctl lab down``) gives back these too. What an agent
that was killed left is put right by the next one.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from forwarder_vpp.dataplane.last_user import alone, gate, gate_of

LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_instances")
LOCK: Final = Path("/run/nsm-inotify-instances")
NEEDED: Final = 8192

_LOG: Final = structlog.get_logger(__name__)
_TUNNEL: Final = re.compile(rb"(?:.*/)?wireguard-go\0-f\0nsm[0-9a-f]{11}\0")


@dataclass(frozen=True, slots=True)
class _Record:
    """What the limit was before anyone raised it, and what was written last; a file's one line, ``128 8192``."""

    before: int
    written: int

    @classmethod
    def of(cls, users: int, now: int) -> "_Record | None":
        """None if nobody raised the limit, or someone else has set it since: then that is what there was."""
        numbers = os.pread(users, 64, 0).split()
        found = cls(*map(int, numbers)) if len(numbers) == 2 else None
        return found if found and found.written == now else None

    def keep(self, users: int) -> None:
        os.ftruncate(users, 0)
        os.pwrite(users, b"%d %d\n" % (self.before, self.written), 0)


def running(processes: Path = Path("/proc")) -> int:
    """How many tunnels of forwarders this machine runs in wireguard-go."""
    count = 0
    for process in processes.glob("[0-9]*"):
        try:
            count += bool(_TUNNEL.fullmatch((process / "cmdline").read_bytes()))
        except OSError:  # it has ended
            continue
    return count


class InotifyRoom:
    """One agent's claim to the higher limit. ``tunnels`` counts the processes that need it without an agent."""

    def __init__(
        self,
        limit: Path = LIMIT,
        lock: Path = LOCK,
        needed: int = NEEDED,
        tunnels: Callable[[], int] = running,
    ) -> None:
        self._limit = limit
        self._lock = lock
        self._needed = needed
        self._tunnels = tunnels
        self._users: int | None = None
        self._taken = False

    def take(self) -> None:
        """Raise the limit if it is lower, until ``leave``. Where we may not, one warning: some tunnels will do."""
        if self._taken:
            return
        self._taken = True
        with self._warned(), gate(self._lock):
            self._users = self._open()
            try:
                self._raise(self._users)
            finally:
                fcntl.flock(self._users, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Put back what was there before, if nobody else needs more; also what an agent that was killed left."""
        self._taken = False
        if self._users is None and not self._lock.exists():
            return
        with self._warned(), gate(self._lock):
            if self._users is None:
                self._users = self._open()
            users, self._users = self._users, None
            try:
                if alone(users):
                    self._put_back(users)
            finally:
                os.close(users)

    def _open(self) -> int:
        """Only inside the gate: outside, the file could be removed before it is locked."""
        return os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _raise(self, users: int) -> None:
        now = self._now()
        record = _Record.of(users, now)
        if now >= self._needed:
            return
        before = record.before if record else now
        # The record first: who dies in between leaves one that says nothing.
        _Record(before, self._needed).keep(users)
        self._limit.write_text(f"{self._needed}\n")
        _LOG.info("inotify.limit_raised", file=str(self._limit), before=before, now=self._needed)

    def _put_back(self, users: int) -> None:
        record = _Record.of(users, self._now())
        if record is not None:
            now = min(record.before + self._tunnels(), record.written)
            self._limit.write_text(f"{now}\n")
            _LOG.info("inotify.limit_put_back", file=str(self._limit), before=record.written, now=now)
            if now != record.before:
                _Record(record.before, now).keep(users)
                return
        self._lock.unlink(missing_ok=True)
        gate_of(self._lock).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _warned(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            _LOG.warning("inotify.limit_kept", file=str(self._limit), reason=str(error))

    def _now(self) -> int:
        return int(self._limit.read_text())
