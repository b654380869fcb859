"""Expedited grace periods are put back by the last user, also after one that died."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp import expedited
from forwarder_vpp.dataplane.vpp.expedited import Expedited
from nsm.model.errors import Code, NsmError


@pytest.fixture
def switch(tmp_path: Path) -> Path:
    path = tmp_path / "rcu_expedited"
    path.write_text("0\n")
    return path


def test_it_is_on_for_the_length_of_the_operation(switch: Path, tmp_path: Path) -> None:
    found = Expedited(switch, tmp_path / "lock")
    assert switch.read_text() == "0\n"
    with found.during():
        assert switch.read_text() == "1"
    assert switch.read_text() == "0\n"


def test_the_last_of_several_users_puts_it_back(switch: Path, tmp_path: Path) -> None:
    one = Expedited(switch, tmp_path / "lock")
    other = Expedited(switch, tmp_path / "lock")
    first = one.during()
    second = other.during()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert switch.read_text() == "1"
    second.__exit__(None, None, None)
    assert switch.read_text() == "0\n"


def test_what_a_dead_user_left_is_put_right_at_the_next_start(switch: Path, tmp_path: Path) -> None:
    switch.write_text("1")
    (tmp_path / "lock").write_text("0\n")
    Expedited(switch, tmp_path / "lock")
    assert switch.read_text() == "0\n"


def test_a_machine_that_has_it_on_keeps_it_on(switch: Path, tmp_path: Path) -> None:
    switch.write_text("1\n")
    with Expedited(switch, tmp_path / "lock").during():
        pass
    assert switch.read_text() == "1\n"


def test_a_switch_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NsmError, match="none cannot be written") as caught:
        Expedited(tmp_path / "none", tmp_path / "lock")
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_a_machine_that_does_not_let_us_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expedited, "Expedited", lambda: Expedited(tmp_path / "none", tmp_path / "lock"))
    assert expedited.expedited_if_possible() is None


def test_users_that_come_while_others_go_leave_it_as_it_was(switch: Path, tmp_path: Path) -> None:
    users = [Expedited(switch, tmp_path / "lock") for _ in range(4)]

    def come_and_go(user: Expedited) -> set[str]:
        seen = set()
        for _ in range(200):
            with user.during():
                seen.add(switch.read_text())
        return seen

    with ThreadPoolExecutor(len(users)) as pool:
        seen = set().union(*pool.map(come_and_go, users))
    assert switch.read_text() == "0\n"
    assert seen <= {"1", ""}, "empty while another writes the same to a file that is no sysfs"
