"""Watchers, queues and timers of the registry."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from controlplane.registry.expiry import ExpiryTimers
from controlplane.registry.queues import NameQueues
from controlplane.registry.watch import Hub
from nsm.model.errors import Code, NsmError


async def take(changes: AsyncIterator[tuple[str, bool]], count: int) -> list[tuple[str, bool]]:
    async with asyncio.timeout(10):
        return [await anext(changes) for _ in range(count)]


async def test_a_watch_gives_what_is_there_then_what_changes() -> None:
    hub: Hub[str] = Hub()
    changes = hub.watch((("x", "x1"), ("y", "y1")), lambda entry: entry.startswith("x"))
    assert await take(changes, 1) == [("x1", False)]
    hub.publish("y", "y2")
    hub.publish("x", "x2")
    assert await take(changes, 1) == [("x2", False)]
    hub.publish("x", "x2", deleted=True)
    assert await take(changes, 1) == [("x2", True)]


async def test_a_slow_watcher_gets_the_newest_of_each_entry_once() -> None:
    hub: Hub[str] = Hub()
    changes = hub.watch((("a", "a0"),), lambda _entry: True)
    await take(changes, 1)
    for number in range(1000):
        hub.publish("a", f"a{number}")
        hub.publish("b", f"b{number}", deleted=True)
    assert await take(changes, 2) == [("a999", False), ("b999", True)]


async def test_the_end_comes_after_what_is_pending_and_frees_the_watcher() -> None:
    hub: Hub[str] = Hub()
    changes = hub.watch((("a", "a"), ("b", "b")), lambda _entry: True)
    await take(changes, 1)
    hub.end(NsmError(Code.UNAVAILABLE, "gone"))
    assert await take(changes, 1) == [("b", False)]
    with pytest.raises(NsmError, match="gone"):
        await anext(changes)
    assert len(hub) == 0


async def test_one_name_is_served_in_order_and_others_beside_it() -> None:
    queues, order, gate = NameQueues(), list[str](), asyncio.Event()

    async def work(name: str, label: str) -> None:
        async with queues.turn(name):
            if label == "first":
                await gate.wait()
            order.append(label)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(work("a", "first"))
        group.create_task(work("a", "second"))
        group.create_task(work("a", "third"))
        await group.create_task(work("b", "beside"))
        gate.set()
    assert order == ["beside", "first", "second", "third"]
    assert len(queues) == 0


async def test_a_timer_fires_once_and_a_later_one_replaces_it() -> None:
    fired: asyncio.Queue[str] = asyncio.Queue()
    timers = ExpiryTimers(fired.put, lambda: 100.0)
    timers.set("later", 1e9)
    timers.set("moved", 100.0)
    timers.set("moved", 1e9)
    timers.set("now", 99.0)
    async with asyncio.timeout(10):
        assert await fired.get() == "now"
    assert not timers.is_set("now")
    assert timers.is_set("later")
    assert timers.is_set("moved")
    timers.stop()
    assert len(timers) == 0
    assert fired.empty()
