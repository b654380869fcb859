"""The limit on inotify instances is raised while an agent needs it, put back by the last one, and never too low."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.linux import inotify_room
from forwarder_vpp.dataplane.linux.inotify_room import InotifyRoom


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    path = tmp_path / "max_user_instances"
    path.write_text("128\n")
    return path


def agent(limit: Path, tunnels: int = 0) -> InotifyRoom:
    return InotifyRoom(limit, limit.with_name("lock"), 8192, lambda: tunnels)


def read(limit: Path) -> int:
    return int(limit.read_text())


def killed(limit: Path) -> None:
    """An agent that raises the limit and is gone without a word: its locks go, its record stays."""
    code = (
        "import os, signal, sys; from pathlib import Path;"
        "from forwarder_vpp.dataplane.linux.inotify_room import InotifyRoom;"
        "limit = Path(sys.argv[1]); InotifyRoom(limit, limit.with_name('lock'), 8192, int).take();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, limit], check=False, timeout=60)
    assert done.returncode == -9


def names(limit: Path) -> set[str]:
    return {each.name for each in limit.parent.iterdir()}


def test_it_is_raised_while_an_agent_needs_it(limit: Path) -> None:
    one = agent(limit)
    one.take()
    one.take()
    assert read(limit) == 8192
    one.leave()
    assert read(limit) == 128
    assert names(limit) == {limit.name}, "nothing else stays"


@pytest.mark.parametrize("high", [8192, 65536])
def test_a_limit_that_is_high_enough_is_left_alone(limit: Path, high: int) -> None:
    limit.write_text(f"{high}\n")
    one = agent(limit)
    one.take()
    one.leave()
    assert read(limit) == high


def test_the_last_of_several_puts_it_back(limit: Path) -> None:
    one, other = agent(limit), agent(limit)
    one.take()
    other.take()
    one.leave()
    assert read(limit) == 8192
    other.leave()
    assert read(limit) == 128


def test_tunnels_that_outlive_their_agent_take_nothing_from_others(limit: Path) -> None:
    one = agent(limit, tunnels=200)
    one.take()
    one.leave()
    assert read(limit) == 128 + 200
    agent(limit, tunnels=1).leave()
    assert read(limit) == 128 + 1
    agent(limit).leave()
    assert read(limit) == 128
    assert names(limit) == {limit.name}


def test_what_a_killed_agent_left_is_put_right_by_the_next(limit: Path) -> None:
    killed(limit)
    assert read(limit) == 8192
    following = agent(limit)
    following.leave()
    assert read(limit) == 128


def test_the_next_agent_knows_what_there_was_before_a_killed_one(limit: Path) -> None:
    killed(limit)
    following = agent(limit)
    following.take()
    assert read(limit) == 8192
    following.leave()
    assert read(limit) == 128


def test_what_is_left_by_a_killed_agent_is_not_put_right_under_another(limit: Path) -> None:
    other = agent(limit)
    other.take()
    killed(limit)
    agent(limit).leave()
    assert read(limit) == 8192
    other.leave()
    assert read(limit) == 128


@pytest.mark.parametrize("set_since", [300, 9000])
def test_what_someone_else_sets_meanwhile_stays(limit: Path, set_since: int) -> None:
    one = agent(limit)
    one.take()
    limit.write_text(f"{set_since}\n")
    one.leave()
    assert read(limit) == set_since
    one.take()
    one.leave()
    assert read(limit) == set_since


def test_agents_that_come_while_others_go_leave_it_as_it_was(limit: Path) -> None:
    def come_and_go(one: InotifyRoom) -> set[int]:
        seen = set()
        for _ in range(100):
            one.take()
            seen.add(int(limit.read_text() or 8192))  # empty while another writes the same: no sysctl is that
            one.leave()
        return seen

    agents = [agent(limit) for _ in range(4)]
    with ThreadPoolExecutor(len(agents)) as pool:
        assert set().union(*pool.map(come_and_go, agents)) == {8192}
    assert read(limit) == 128
    assert names(limit) == {limit.name}


def test_where_it_cannot_be_changed_all_goes_on(tmp_path: Path) -> None:
    one = agent(tmp_path / "missing")
    one.take()
    one.leave()
    nowhere = InotifyRoom(tmp_path / "missing", tmp_path / "nowhere/lock")
    nowhere.take()
    nowhere.leave()
    assert not (tmp_path / "missing").exists()


def test_only_a_forwarders_own_processes_are_counted(tmp_path: Path) -> None:
    commands = {
        "1": "/usr/bin/wireguard-go -f nsm0123456789a",
        "2": "wireguard-go -f nsm0123456789b",
        "3": "/usr/bin/wireguard-go -f wg0",
        "4": "wireguard-go nsm0123456789c",
        "5": "grep wireguard-go -f nsm0123456789d",
        "self": "wireguard-go -f nsm0123456789e",
    }
    for process, command in commands.items():
        (tmp_path / process).mkdir()
        (tmp_path / process / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
    (tmp_path / "6").mkdir()
    assert inotify_room.running(tmp_path) == 2
