"""Wait for a daemon's ``ready`` event in its log: woken by inotify and by the process's end, never by a timer."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nsmctl.errors import LabError
from nsmctl.lab.processes import Process
from nsmctl.lab.watch import IN_MODIFY, Waker, watching


def wait_event(
    process: Process,
    event: str,
    *,
    timeout: float,
    since: int = 0,
    where: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The first log line ``{"event": event, ...}`` at or after byte ``since`` that holds the facts of ``where``.

    LabError with the end of the log when the process ends first, or after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    reader = _Lines(Path(process.log), since)
    with _watched(process) as poller:
        while True:
            alive = process.alive  # asked before reading: what it wrote last is still read
            for line in reader.new():
                if line.get("event") == event and (where or {}).items() <= line.items():
                    return line
            if not alive:
                raise LabError(f"{process.name} ended before it was ready:\n{tail(process)}")
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise LabError(
                    f"{process.name} was not ready within {timeout:.0f} s:\n{tail(process)}",
                    hint=f"see {process.log}",
                )


def said(process: Process, event: str, *, since: int = 0) -> tuple[dict[str, Any], ...]:
    """Every such event in its log so far, at or after byte ``since``; also of a process that has ended."""
    return tuple(line for line in _Lines(Path(process.log), since).new() if line.get("event") == event)


def tail(process: Process, lines: int = 8) -> str:
    """The last lines of its log, indented."""
    try:
        text = Path(process.log).read_text(errors="replace")
    except FileNotFoundError:
        text = ""
    return "\n".join(f"  {line[:800]}" for line in text.splitlines()[-lines:]) or "  (its log is empty)"


class _Lines:
    """The JSON lines of a growing file, each once; other text is passed over."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._offset = offset

    def new(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            while (raw := file.readline()).endswith(b"\n"):
                self._offset += len(raw)
                if raw.startswith(b"{"):
                    try:
                        value = json.loads(raw)
                    except ValueError:
                        continue
                    if isinstance(value, dict):
                        yield value


@contextmanager
def _watched(process: Process) -> Iterator[Waker]:
    """Woken when the log grows or the process ends."""
    with watching(Path(process.log), IN_MODIFY) as waker:
        try:
            ended = os.pidfd_open(process.pid)
        except ProcessLookupError:
            yield waker
            return
        try:
            waker.register(ended)
            yield waker
        finally:
            os.close(ended)
