"""What a process holds: descriptors, threads and memory as the kernel tells, tasks and objects as it tells itself."""

import os
import re
import signal
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nsmctl.lab.processes import Process
from nsmctl.lab.ready import wait_event

PATIENCE_S: Final = 60.0
GRPCS: Final = "event_engine"
"""What gRPC calls the threads of its pool, which grows while all of them are busy."""
_NUMBER: Final = re.compile(r":?\[\d+\]$")


@dataclass(frozen=True, slots=True)
class Held:
    """Numbers of descriptors by kind and of tasks by coroutine; ``anonymous_kib``: PSS of anonymous memory.

    The share of files in memory is left out: it depends on who else runs the same program. ``ours``: of the objects
    those of our commonest classes, to see what it was that grew. ``blocks``: pieces of memory that Python holds,
    ``heap_kib``: what is held of the C library's heap. ``pools``: threads of pools, by pool; ``threads`` are
    the others.
    """

    fds: Mapping[str, int]
    threads: int
    anonymous_kib: int
    tasks: Mapping[str, int] = field(default_factory=dict)
    objects: int = 0
    ours: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)
    blocks: int = 0
    heap_kib: int = 0


def held(process: Process) -> Held:
    """What a daemon of ours holds now; it collects garbage first. LabError if it does not answer SIGQUIT."""
    told = _told(process)
    threads = _threads(process.pid)
    pools = {**told["pools"], GRPCS: threads.count(GRPCS)}
    return Held(
        fds=descriptors(process.pid),
        threads=len(threads) - sum(pools.values()),
        anonymous_kib=int(_field(process.pid, "smaps_rollup", "Pss_Anon:")),
        tasks=told["tasks"],
        objects=told["objects"],
        ours=told["ours"],
        pools=pools,
        blocks=told["blocks"],
        heap_kib=told["heap_kib"],
    )


def _threads(pid: int) -> list[str]:
    """The name of each of its threads."""
    found = []
    for each in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # ended meanwhile
            found.append((each / "comm").read_text().strip())
    return found


def descriptors(pid: int) -> Mapping[str, int]:
    """How many of each kind it has open."""
    found: Counter[str] = Counter()
    folder = Path(f"/proc/{pid}/fd")
    for entry in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[kind(str(entry.readlink()))] += 1
    return dict(sorted(found.items()))


def kind(target: str) -> str:
    """``socket``, ``pipe``, ``net`` (a namespace), ``anon_inode:[eventpoll]``, a device's path, or ``file``."""
    if target.startswith("/"):
        return target if target.startswith("/dev/") else "file"
    return _NUMBER.sub("", target)


def _told(process: Process) -> Mapping[str, Any]:
    since = Path(process.log).stat().st_size
    os.kill(process.pid, signal.SIGQUIT)
    return wait_event(process, "inventory", timeout=PATIENCE_S, since=since)


def _field(pid: int, file: str, name: str) -> str:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return line.split()[1]
    raise LookupError(f"/proc/{pid}/{file} has no {name}")
