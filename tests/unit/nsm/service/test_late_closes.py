"""A Close that found its next hop away is carried out when the hop registers, unless it is not wanted any more."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import pytest

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.path import Path, PathSegment
from nsm.service.late_closes import LateCloses

AWAY = NsmError(Code.UNAVAILABLE, "away")


def connection(own: str = "m-1", behind: str = "f-1", *, lifetime: float = 600.0) -> Connection:
    expires = time.time_ns() + round(lifetime * 1e9)
    segments = (PathSegment("c", "c-1", "t", expires), PathSegment("m", own), PathSegment("f", behind))
    return Connection(id=own, path=Path(1, segments))


class World:
    """``fwd`` registers by ``arrive``; ``answers`` are what it says to one Close after the other, ``None`` = closed."""

    def __init__(self) -> None:
        self.late = LateCloses(self.close, self.arrivals)
        self.answers: list[NsmError | None] = []
        self.tried: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.followers: dict[str, set[asyncio.Queue[str]]] = {}

    async def close(self, url: str, connection: Connection, *, deadline: float) -> None:
        assert deadline > asyncio.get_running_loop().time()
        self.tried.put_nowait((url, connection.id))
        await self.may_answer.wait()
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    async def arrivals(self, name: str) -> AsyncGenerator[str, None]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        self.followers.setdefault(name, set()).add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self.followers[name].discard(queue)

    async def arrive(self, url: str, name: str = "fwd") -> None:
        """All that this causes without waiting has happened when it returns."""
        await settle()
        for queue in self.followers.get(name, ()):
            queue.put_nowait(url)
        await settle()

    def tries(self) -> list[tuple[str, str]]:
        found = []
        while not self.tried.empty():
            found.append(self.tried.get_nowait())
        return found


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.may_answer.set()
    await made.late.stop()
    assert not any(made.followers.values()), "nobody is watched any more"


async def test_each_is_closed_where_its_hop_registers(world: World) -> None:
    world.late.keep("fwd", connection("m-1"))
    world.late.keep("fwd", connection("m-2"))
    world.late.keep("other", connection("m-3"))
    await world.arrive("unix:new")
    assert world.tries() == [("unix:new", "m-1"), ("unix:new", "m-2")]
    assert len(world.late) == 1
    assert not world.followers["fwd"]
    world.late.keep("fwd", connection("m-4"))
    await world.arrive("unix:newer")
    assert world.tries() == [("unix:newer", "m-4")]


async def test_one_that_is_still_away_is_tried_at_the_next_registration(world: World) -> None:
    world.answers = [AWAY, NsmError(Code.DEADLINE_EXCEEDED, "silent"), None]
    world.late.keep("fwd", connection())
    for url in ("one", "two", "three", "four"):
        await world.arrive(url)
    assert world.tries() == [("one", "m-1"), ("two", "m-1"), ("three", "m-1")]


async def test_a_refusal_is_an_answer(world: World) -> None:
    world.answers = [NsmError(Code.PERMISSION_DENIED, "no")]
    world.late.keep("fwd", connection())
    await world.arrive("one")
    assert len(world.late) == 0


async def test_one_that_is_wanted_again_is_not_closed(world: World) -> None:
    world.late.keep("fwd", connection("m-1"))
    world.late.keep("fwd", connection("m-2"))
    world.late.answered(connection("m-1"))
    await world.arrive("one")
    assert world.tries() == [("one", "m-2")]


async def test_the_same_connection_at_another_hop_does_not_keep_the_old_one(world: World) -> None:
    world.late.keep("fwd", connection("m-1", "f-1"))
    world.late.answered(connection("m-1", "f-2"))
    await world.arrive("one")
    assert world.tries() == [("one", "m-1")]


async def test_a_close_waits_for_the_request_under_way_and_then_for_its_outcome(world: World) -> None:
    world.late.keep("fwd", connection("m-1"))
    deadline = asyncio.get_running_loop().time() + 60
    async with world.late.held("m-1", deadline):
        await world.arrive("one")
        assert world.tries() == []
    await settle()
    assert world.tries() == [("one", "m-1")], "the Request failed"
    world.late.keep("fwd", connection("m-1"))
    async with world.late.held("m-1", deadline):
        await world.arrive("two")
        world.late.answered(connection("m-1"))
    await settle()
    assert world.tries() == []


async def test_a_request_waits_for_the_close_under_way(world: World) -> None:
    world.may_answer.clear()
    world.late.keep("fwd", connection("m-1"))
    await world.arrive("one")
    loop = asyncio.get_running_loop()
    with pytest.raises(NsmError) as caught:
        async with world.late.held("m-1", loop.time() + 0.01):
            pass
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    held = asyncio.create_task(_hold(world))
    await settle()
    assert not held.done()
    world.may_answer.set()
    assert await held == 0


async def _hold(world: World) -> int:
    async with world.late.held("m-1", asyncio.get_running_loop().time() + 60):
        return len(world.late)


async def test_nothing_is_kept_beyond_the_tokens_before_ours(world: World) -> None:
    world.late.keep("fwd", connection("m-1", lifetime=-1))
    assert len(world.late) == 0
    world.late.keep("fwd", connection("m-2", lifetime=0.02))
    assert len(world.late) == 1
    (follower,) = world.late._followers.values()
    await asyncio.wait({follower}, timeout=10)
    assert len(world.late) == 0
    await world.arrive("one")
    assert world.tries() == []


async def test_what_never_reached_a_next_hop_has_nothing_to_close(world: World) -> None:
    made = connection()
    world.late.keep("fwd", replace(made, path=Path(1, made.route.segments[:2])))
    assert len(world.late) == 0


@pytest.mark.parametrize(
    ("error", "is_raised", "is_kept"),
    [
        (AWAY, False, True),
        (NsmError(Code.DEADLINE_EXCEEDED, "silent"), True, True),
        (NsmError(Code.PERMISSION_DENIED, "no"), True, False),
        (asyncio.CancelledError(), True, True),
    ],
)
async def test_what_becomes_of_a_close_that_fails(
    world: World, error: BaseException, is_raised: bool, is_kept: bool
) -> None:
    caught: BaseException | None = None
    try:
        with world.late.made_up_for("fwd", connection()):
            raise error
    except (NsmError, asyncio.CancelledError) as raised:
        caught = raised
    assert (caught is error) is is_raised
    assert len(world.late) == int(is_kept)
