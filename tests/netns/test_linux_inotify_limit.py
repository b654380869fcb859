"""The limit on inotify instances, which tunnels by wireguard-go raise while they need it."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.linux import inotify_room, uapi, wireguard_go
from forwarder_vpp.dataplane.linux.dataplane import WIREGUARD_GO
from tests.netns.linux_node import dataplane
from tests.netns.linux_sides import Side, Sides, connect, disconnect, end_all, wireguard

pytestmark = [pytest.mark.linux, pytest.mark.netns]


@pytest.fixture
def engine() -> str:
    """All tests of this file."""
    return WIREGUARD_GO


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """What stands for the machine's limit, which other labs may have raised; folder ``ours`` stands for /proc."""
    (tmp_path / "ours").mkdir()
    path = tmp_path / "max_user_instances"
    path.write_text("128\n")
    tunnels = partial(inotify_room.running, tmp_path / "ours")
    room = partial(inotify_room.InotifyRoom, path, tmp_path / "lock", tunnels=tunnels)
    monkeypatch.setattr(wireguard_go, "InotifyRoom", room)
    return lambda: int(path.read_text())


async def test_it_is_raised_as_long_as_it_is_needed(limit: Callable[[], int], sides: Sides) -> None:
    intents = wireguard(sides)
    await connect(sides, intents)
    assert limit() == inotify_room.NEEDED
    for side in sides:
        count_tunnels(side)
    await sides[0].plane.close()
    assert limit() == inotify_room.NEEDED, "the other agent still needs it"
    await disconnect(sides[1:], intents[1:])
    await sides[1].plane.close()
    assert limit() == 128 + 1, "the tunnel that outlives its agent takes nothing from others"
    await asyncio.to_thread(end_all, sides[0].state)
    async with dataplane(sides[0].node, sides[0].state):
        assert limit() == 128


def count_tunnels(side: Side) -> None:
    """Those of ``side`` are tunnels of this test's machine."""
    for path in side.state.rglob("*.sock"):
        with uapi.connect(path) as client:
            process = uapi.owner_of(client)
        (side.state.parent / "ours" / str(process)).symlink_to(f"/proc/{process}")
