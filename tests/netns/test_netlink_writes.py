"""What the agent sends to the kernel, counted by strace: an adopted and refreshed connection costs no write."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.netlink import links, wire
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.tags import Tags
from nsmctl.lab.namespaces import entered
from tests.netns.linux_node import Executor, dataplane, inside, local

pytestmark = [pytest.mark.linux, pytest.mark.netns]

_TYPE = re.compile(r"nlmsg_type=(\w+)")
_NAMES = {value: name for name, value in vars(wire).items() if name.startswith("RTM_")}
_FAMILY_LOOKUP = r'"\x03\x02\x00\x00\x0e\x00\x02\x00\x77'
"""How strace shows CTRL_CMD_GETFAMILY of ``wireguard``: generic netlink's question has rtnetlink's number 16."""
_SCRIPT = """
import asyncio, sys
from pathlib import Path
from forwarder_vpp.reconciler.reconciler import Reconciler
from tests.netns.linux_node import Executor, dataplane, local

async def close(plane, intent):
    reconciler = Reconciler(plane, quarantine=60)
    await reconciler.start([intent])
    assert reconciler.writes == 0
    reconciler.remove(intent.id)
    await reconciler.withdraw(intent.id, asyncio.get_running_loop().time() + 10)
    await reconciler.stop()

async def main(node, client, endpoint, state, mode):
    async with dataplane(node, state) as plane:
        ids = [plane.namespaces.learn(str(each)) for each in (client, endpoint)]
        items = plane.items(local(*ids))
        if mode == "adopt":
            found = await Executor(plane).dump(items)
            assert [found[item.key].item for item in items] == list(items)
        elif mode == "close":
            await close(plane, local(*ids))
        else:
            await Executor(plane).create(items)

asyncio.run(main(*map(Path, sys.argv[1:5]), sys.argv[5]))
"""


@pytest.fixture
def places(make_netns: Callable[[str], Path]) -> list[Path]:
    node = make_netns("n")
    inside(node, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    return [node, make_netns("c"), make_netns("e")]


def traced(words: list[str], log: Path) -> list[str]:
    """The messages a run sent, by strace."""
    trace = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=sendto,sendmsg",
        "-e",
        "signal=none",
        "-s",
        "64",
        "-o",
        str(log),
    ]
    done = subprocess.run([*trace, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line for line in log.read_text().splitlines() if _FAMILY_LOOKUP not in line]
    sent = [_name(match[1]) for line in lines for match in _TYPE.finditer(line)]
    assert "RTM_GETLINK" in sent
    return sent


def writes(sent: list[str]) -> list[str]:
    return [name for name in sent if not name.startswith("RTM_GET")]


def _name(shown: str) -> str:
    """By name: strace knows the family of a socket only in its own namespace, and shows a number elsewhere."""
    return _NAMES[int(shown, 16)] if shown.startswith("0x") else shown


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_adoption_and_refresh_write_nothing_and_a_close_one_message(
    places: list[Path], tmp_path: Path
) -> None:
    words = [sys.executable, "-c", _SCRIPT, *map(str, places), str(tmp_path)]
    made = traced([*words, "create"], tmp_path / "log")
    assert made.count("RTM_NEWNSID") == 2
    assert made.count("RTM_NEWLINK") == 1  # the pair, both ends in place
    assert made.count("RTM_SETLINK") == 2  # one mark an end
    assert not {"RTM_GETROUTE", "RTM_GETRULE"} & set(made)  # nothing of ours can be on it yet
    assert writes(traced([*words, "adopt"], tmp_path / "log")) == []
    assert writes(traced([*words, "close"], tmp_path / "log")) == [
        "RTM_DELLINK"
    ]  # both ends and all they carry


async def test_a_link_whose_making_was_cut_short_is_removed_by_the_next_agent(
    places: list[Path], tmp_path: Path
) -> None:
    tags = Tags(places[0].name)
    with entered(places[1]), Session() as session:
        for name, group in (("cut", tags.group), ("other", 5)):
            attributes = [(wire.IFLA_IFNAME, wire.text(name)), (wire.IFLA_GROUP, wire.u32(group))]
            session.change(
                links.create(links.AT_NODE, [*attributes, links.of_kind("bridge", [])], up=False), name
            )
    async with dataplane(places[0], tmp_path) as plane:
        plane.namespaces.learn(str(places[1]))
    async with dataplane(places[0], tmp_path):
        shown = inside(places[1], "ip", "-o", "link")
    assert "other" in shown
    assert "cut" not in shown


async def test_another_instance_leaves_these_links_alone(places: list[Path], tmp_path: Path) -> None:
    async with dataplane(places[0], tmp_path / "a") as plane:
        ids = [plane.namespaces.learn(str(each)) for each in places[1:]]
        items = plane.items(local(*ids))
        await Executor(plane).create(items)
    async with dataplane(places[0], tmp_path / "b", instance="other") as plane:
        for each in places[1:]:
            plane.namespaces.learn(str(each))
        assert not await Executor(plane).dump([])
    assert "nsm-1" in inside(places[1], "ip", "-o", "link")
