"""What a daemon has in hand, told when asked by SIGQUIT: what grows from one telling to the next is a leak.

Go ends a process on SIGQUIT after it has told its goroutines; ours goes on.
"""

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import structlog

ROOMS: Final = ("nsm.", "forwarder_vpp.", "controlplane.")
MOST: Final = 20
"""So many of our classes are told, those with the most instances."""

_LOG: Final = structlog.get_logger()


def tell() -> None:
    """One event ``inventory``; garbage is collected first, so that only what somebody holds is counted."""
    _LOG.info("inventory", **inventory(asyncio.get_running_loop()))


def inventory(loop: asyncio.AbstractEventLoop) -> Mapping[str, Any]:
    """Numbers of tasks (by coroutine), threads, collectable objects, and of those of our own classes."""
    gc.collect()
    objects = gc.get_objects()
    tasks = Counter(_coroutine(task) for task in asyncio.all_tasks(loop))
    ours = Counter(_name(type(one)) for one in objects if str(type(one).__module__).startswith(ROOMS))
    return {
        "tasks": dict(sorted(tasks.items())),
        "threads": threading.active_count(),
        "objects": len(objects),
        "ours": dict(ours.most_common(MOST)),
    }


def _coroutine(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", type(coroutine).__name__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
