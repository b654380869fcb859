"""Who makes a ring goes before who removes one, and nobody waits for ever."""

import asyncio
from collections.abc import Callable

import pytest

from forwarder_vpp.dataplane.vpp.ring_turns import IN_A_ROW, RingTurns


class Queue:
    """Those who wait for a turn, and the order in which they had it."""

    def __init__(self) -> None:
        self.turns = RingTurns()
        self.had: list[str] = []
        self.at_once = 0
        self.held = asyncio.Event()
        self.after: Callable[[], object] | None = None
        """Called when the first turn has ended, before anyone else moves."""
        self._tasks: list[asyncio.Task[None]] = []

    async def joined(self, *names: str) -> list[asyncio.Task[None]]:
        """Stand in line; a name that begins with ``r`` removes."""
        tasks = [asyncio.create_task(self._work(name)) for name in names]
        self._tasks += tasks
        await asyncio.sleep(0)
        return tasks

    async def done(self) -> list[str]:
        self.held.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks, return_exceptions=True), 5)
        return self.had

    async def _work(self, name: str) -> None:
        async with self.turns.turn(makes=not name.startswith("r")):
            self.had.append(name)
            self.at_once += 1
            assert self.at_once == 1
            await self.held.wait()
            await asyncio.sleep(0)
            self.at_once -= 1
        after, self.after = self.after, None
        if after is not None:
            after()


@pytest.fixture
async def queue() -> Queue:
    """One has its turn until ``held`` is set."""
    made = Queue()
    await made.joined("first")
    return made


async def test_who_makes_goes_before_who_came_earlier_and_removes(queue: Queue) -> None:
    await queue.joined("r1", "r2", "m1", "m2")
    assert await queue.done() == ["first", "m1", "m2", "r1", "r2"]


async def test_who_removes_has_a_turn_after_so_many(queue: Queue) -> None:
    makers = [f"m{number}" for number in range(2 * IN_A_ROW)]
    await queue.joined("r1", "r2", *makers)
    had = await queue.done()
    assert had.index("r1") == IN_A_ROW + 1
    assert had.index("r2") == 2 * IN_A_ROW + 2
    assert sorted(had) == sorted(["first", "r1", "r2", *makers])


async def test_who_was_called_and_has_gone_passes_the_turn_on(queue: Queue) -> None:
    called, _ = await queue.joined("m1", "m2")
    queue.after = called.cancel
    assert await queue.done() == ["first", "m2"]


async def test_who_has_gone_before_he_is_called_is_passed_over(queue: Queue) -> None:
    gone, other, _, _ = await queue.joined("m1", "r1", "m2", "r2")
    gone.cancel()
    other.cancel()
    assert await queue.done() == ["first", "m2", "r2"]
    await queue.joined("m3")
    assert queue.had[-1] == "m3"
