"""Processes of the lab: started inside a namespace, logged to a file, ended by pid and nobody else's.

A pid alone may be used again, so a process is a pid *and* its start time (field 22 of /proc/PID/stat); signals go
through a pidfd, which cannot hit a successor. ``MARK`` in the environment is inherited by whatever a daemon starts,
also by a child that made a session of its own: the census finds leftovers by it.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError

MARK: Final = "NSM_LAB"
_LAUNCHER: Final = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Process:
    """A started process; ``started`` in clock ticks since boot, as /proc has it."""

    name: str
    pid: int
    started: int
    log: str
    netns: str = ""

    @property
    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Start time of a running process in clock ticks; None if there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    netns: Path,
    log: Path,
    env: Mapping[str, str],
    mark: str,
) -> Process:
    """Start ``argv`` in ``netns``, in a session of its own, stdout and stderr appended to ``log``.

    ``env`` is added to ours; ``mark`` identifies the lab. LabError only when the launcher cannot be started: a
    program that is missing shows as a process that ended, with the reason in its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(netns), *argv],
        {**os.environ, **env, MARK: mark},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE, signal.SIGINT],
    )
    started = start_time(pid)
    return Process(name, pid, -1 if started is None else started, str(log), str(netns))


def stop(processes: Iterable[Process], *, grace: float) -> tuple[str, ...]:
    """SIGTERM to all, SIGKILL to those alive after ``grace`` seconds; the names that had to be killed."""
    open_fds = {process: fd for process in processes if (fd := _pidfd(process)) is not None}
    try:
        for fd in open_fds.values():
            _signal(fd, signal.SIGTERM)
        left = _wait(open_fds, grace)
        for process in left:
            _signal(open_fds[process], signal.SIGKILL)
        stuck = _wait({process: open_fds[process] for process in left}, grace=10.0)
    finally:
        for process, fd in open_fds.items():
            os.close(fd)
            reap(process.pid)
    if stuck:
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in stuck)
        raise LabError(f"these processes do not end even by SIGKILL: {names}", hint="see dmesg")
    return tuple(process.name for process in left)


def kill(process: Process) -> None:
    """SIGKILL, and wait until it is gone: the fault of the acceptance scenarios."""
    fd = _pidfd(process)
    if fd is None:
        return
    try:
        _signal(fd, signal.SIGKILL)
        _wait({process: fd}, grace=10.0)
    finally:
        os.close(fd)
        reap(process.pid)


def reap(pid: int) -> None:
    """Collect the exit status if ``pid`` was our child and has ended."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def marked(mark: str, directory: Path | None = None) -> tuple[Process, ...]:
    """Every running process of this lab but this one: by the mark in its environment, or by its arguments.

    A daemon may start a child with a clean environment (VPP is), which then still names a file below ``directory``.
    """
    wanted = f"{MARK}={mark}".encode()
    below = None if directory is None else os.fsencode(directory) + b"/"
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            is_ours = wanted in (entry / "environ").read_bytes().split(b"\0")
            if not is_ours and below is not None:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                is_ours = any(argument.startswith(below) for argument in arguments[1:])
            started = start_time(int(entry.name)) if is_ours else None
            if started is not None:
                found.append(Process((entry / "comm").read_text().strip(), int(entry.name), started, ""))
    return tuple(found)


def _pidfd(process: Process) -> int | None:
    """A pidfd of that very process, None if it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if process.alive:
        return fd
    os.close(fd)
    reap(process.pid)
    return None


def _signal(fd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


def _wait(open_fds: Mapping[Process, int], grace: float) -> tuple[Process, ...]:
    """Those still alive after ``grace`` seconds; returns as soon as all have ended."""
    deadline = time.monotonic() + grace
    poller = select.poll()
    waiting = {fd: process for process, fd in open_fds.items()}
    for fd in waiting:
        poller.register(fd, select.POLLIN)
    while waiting:
        left = deadline - time.monotonic()
        ended = poller.poll(left * 1000) if left > 0 else []
        if not ended:
            break
        for fd, _event in ended:
            poller.unregister(fd)
            del waiting[fd]
    return tuple(waiting.values())
