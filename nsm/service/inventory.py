"""What a daemon has in hand, told when asked by SIGQUIT: what grows from one telling to the next is a leak.

Go ends a process on SIGQUIT after it has told its goroutines; ours goes on.
"""

import asyncio
import gc
import re
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import structlog

from .native import heap_in_use, trim

ROOMS: Final = ("nsm.", "forwarder_vpp.", "controlplane.")
MOST: Final = 20
"""So many of our classes are told, those with the most instances."""
POOLED: Final = re.compile(r"(?P<pool>.+)_\d+")
"""What ``ThreadPoolExecutor`` calls its threads."""
LRU: Final = type(lru_cache(lambda: None))

_LOG: Final = structlog.get_logger()


def tell() -> None:
    """One event ``inventory``; caches are emptied and garbage collected, so that only what must be held is counted.

    Memory that the kernel tells of after it is what is held, and pages of Python's arenas of which a part is held.
    """
    told = inventory(asyncio.get_running_loop())
    trim()
    _LOG.info("inventory", **told)


def inventory(loop: asyncio.AbstractEventLoop) -> Mapping[str, Any]:
    """Numbers of tasks (by coroutine), threads, collectable objects, and of those of our own classes.

    ``blocks``: pieces of memory held of Python's own arenas, ``heap_kib``: what is held of the C library's heap.
    ``pools``: of the threads, those in pools by the pool's name; a pool starts them as work meets, up to its limit.
    """
    forget()
    gc.collect()
    blocks, heap = sys.getallocatedblocks(), heap_in_use()
    objects = gc.get_objects()
    tasks = Counter(_coroutine(task) for task in asyncio.all_tasks(loop))
    ours = Counter(_name(type(one)) for one in objects if str(type(one).__module__).startswith(ROOMS))
    return {
        "tasks": dict(sorted(tasks.items())),
        "threads": threading.active_count(),
        "pools": dict(sorted(_pools().items())),
        "blocks": blocks,
        "heap_kib": heap // 1024,
        "objects": len(objects),
        "ours": dict(ours.most_common(MOST)),
    }


def forget() -> None:
    """Empty our own caches: what they hold is limited and can be made anew, but grows for hours like a leak.

    What a daemon froze when it was ready, some of them among it, is looked at again from then on.
    """
    gc.unfreeze()
    for one in gc.get_objects():
        if (
            type(one) is LRU
            and str(one.__module__).startswith(ROOMS)
            and one.cache_info().maxsize is not None
        ):
            one.cache_clear()


def _pools() -> Counter[str]:
    found = (POOLED.fullmatch(thread.name) for thread in threading.enumerate())
    return Counter(each["pool"] for each in found if each)


def _coroutine(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return getattr(coroutine, "__qualname__", type(coroutine).__name__)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
