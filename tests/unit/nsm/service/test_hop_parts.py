"""The small parts of the hop runtime: lanes, timers, descriptors."""

import asyncio
import math
import os
from pathlib import Path

import pytest

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.service import fds
from nsm.service.lanes import Lanes
from nsm.service.timers import Expiries


async def test_a_lane_is_first_come_first_served_and_leaves_nothing() -> None:
    lanes, order = Lanes(), []

    async def use(number: int) -> None:
        async with lanes.turn("a", math.inf):
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert (order, len(lanes)) == (list(range(20)), 0)


async def test_a_lane_goes_on_after_a_failure_and_after_a_waiter_that_left() -> None:
    lanes = Lanes()
    inside, gate = asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        async with lanes.turn("a", math.inf):
            inside.set()
            await gate.wait()
            raise RuntimeError

    async def wait() -> str:
        async with lanes.turn("a", math.inf):
            return "in"

    failing = asyncio.create_task(fail())
    await inside.wait()
    leaving, staying = asyncio.create_task(wait()), asyncio.create_task(wait())
    await asyncio.sleep(0)
    leaving.cancel()
    gate.set()
    assert await staying == "in"
    with pytest.raises(RuntimeError):
        await failing
    assert len(lanes) == 0


async def test_other_lanes_are_free() -> None:
    lanes = Lanes()
    async with lanes.turn("a", math.inf), lanes.turn("b", math.inf):
        assert len(lanes) == 2


async def test_an_expiry_comes_once_and_a_new_one_replaces_it() -> None:
    ended: list[str] = []
    expiries = Expiries(ended.append)
    now = asyncio.get_running_loop().time()
    expiries.arm("a", now)
    expiries.arm("a", now + 1000)
    expiries.arm("b", now)
    await asyncio.sleep(0.01)
    assert (ended, expiries.is_armed("a"), expiries.is_armed("b")) == (["b"], True, False)
    expiries.disarm("a")
    expiries.disarm("never")
    expiries.arm("c", now + 1000)
    expiries.clear()
    assert len(expiries) == 0


def kernel(url: str) -> Mechanism:
    return Mechanism(LOCAL, KERNEL, {INODE_URL: url})


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_the_same_object_leaves_once_whatever_leads_to_it(tmp_path: Path) -> None:
    (tmp_path / "ns").touch()
    (tmp_path / "link").symlink_to("ns")
    with fds.Departures(passes_fds=True) as leaving:
        sent = leaving.connection(Connection(mechanism=kernel(f"file://{tmp_path}/ns")))
        preferences = leaving.mechanisms((kernel(f"file://{tmp_path}/link"), kernel(f"file://{tmp_path}/ns")))
        (fd,) = leaving.fds
        status = (tmp_path / "ns").stat()
        inode = f"inode://{status.st_dev}/{status.st_ino}"
        assert [one.get(INODE_URL) for one in preferences] == [inode, inode]
        assert sent.mechanism == kernel(inode)
        assert leaving.file(inode) == f"file://{tmp_path}/ns"
        assert is_open(fd)
    assert leaving.fds == []
    assert not is_open(fd)


def test_other_urls_are_left_alone() -> None:
    with fds.Departures(passes_fds=True) as leaving:
        assert leaving.mechanism(kernel("")) == kernel("")
        assert leaving.mechanism(kernel("vsock://1")) == kernel("vsock://1")
        assert leaving.connection(Connection()) == Connection()


def test_a_close_leaves_out_what_is_gone(tmp_path: Path) -> None:
    with fds.Departures(passes_fds=True, may_miss=True) as leaving:
        assert leaving.mechanism(kernel(f"file://{tmp_path}/gone")).parameters == {}
    with pytest.raises(NsmError) as caught, fds.Departures(passes_fds=True) as leaving:
        leaving.mechanism(kernel(f"file://{tmp_path}/gone"))
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_an_inode_is_asked_for_once_a_call(tmp_path: Path) -> None:
    asked: list[str] = []

    async def receive(url: str) -> int:
        asked.append(url)
        return os.open(tmp_path, os.O_PATH)

    box = fds.Box()
    connection, (first, second) = await fds.Arrivals(receive, box).take(
        Connection(mechanism=kernel("inode://1/2")), (kernel("inode://1/2"), kernel(""))
    )
    assert (asked, len(box)) == (["inode://1/2"], 1)
    assert connection.mechanism == first
    assert second == kernel("")
    box.close()
    assert len(box) == 0
