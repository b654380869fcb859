"""The lanes on which TUN devices are made, without the kernel: who gets one, what is closed, which names are tried."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.linux import tun_lanes
from forwarder_vpp.dataplane.linux.tun_lanes import Lanes, lane_name
from forwarder_vpp.dataplane.netlink import syscalls
from nsm.model.errors import Code, NsmError

IFNAMSIZ = 16


class Kernel:
    """Gives out descriptors and remembers them; names in ``taken`` are refused."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.names: list[str] = []
        self.given: list[int] = []

    def new_netns(self) -> int:
        return self._descriptor()

    def stand_in(self, name: str) -> int:
        if name in self.taken:
            raise NsmError(
                Code.FAILED_PRECONDITION, "the kernel refused a TUN device: Device or resource busy"
            )
        self.names.append(name)
        return self._descriptor()

    def _descriptor(self) -> int:
        self.given.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        return self.given[-1]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(syscalls, "new_netns", made.new_netns)
    monkeypatch.setattr(tun_lanes, "_stand_in", made.stand_in)
    return made


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def in_thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_name_is_of_one_instance_and_one_lane_and_fits_everywhere() -> None:
    names = [
        lane_name(instance, number, attempt) for instance in "ab" for number in (0, 1) for attempt in (0, 1)
    ]
    assert len({*names}) == len(names)
    assert all(len(name.encode()) < IFNAMSIZ for name in names)
    assert lane_name("a", 0) == names[0], "the same in every run of the agent"


def test_they_are_made_once_and_closed_together(kernel: Kernel) -> None:
    lanes = Lanes("a", 2)
    lanes.open()
    lanes.open()
    assert kernel.names == [lane_name("a", 0), lane_name("a", 1)]
    with lanes.taken() as first, lanes.taken() as second:
        assert {first.name, second.name} == {*kernel.names}
        assert first.netns == second.netns
    assert len(kernel.given) == 3, "one namespace, a stand-in each"
    lanes.close()
    assert not any(map(is_open, kernel.given))


def test_those_that_were_never_made_are_closed_as_well(kernel: Kernel) -> None:
    Lanes("a", 2).close()
    assert kernel.given == []


def test_whoever_finds_none_free_waits_for_one(kernel: Kernel) -> None:
    lanes = Lanes("a", 1)
    done: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with lanes.taken() as lane:
            done.append(lane.name)

    with lanes.taken():
        thread = in_thread(second)
        assert waiting.wait(5)
        thread.join(0.05)
        assert done == []
    thread.join(5)
    assert done == kernel.names
    lanes.close()


def test_a_lane_is_free_again_after_a_failure(kernel: Kernel) -> None:
    lanes = Lanes("a", 1)
    with pytest.raises(ZeroDivisionError), lanes.taken():
        raise ZeroDivisionError
    with lanes.taken() as lane:
        assert lane.name == kernel.names[0]
    lanes.close()


def test_a_name_that_another_agent_still_has_is_passed_over(kernel: Kernel) -> None:
    kernel.taken = {lane_name("a", 1)}
    lanes = Lanes("a", 2)
    lanes.open()
    assert kernel.names == [lane_name("a", 0), lane_name("a", 1, attempt=1)]
    lanes.close()


def test_what_the_kernel_refuses_is_said_and_tried_again_later(kernel: Kernel) -> None:
    kernel.taken = {lane_name("a", 1, attempt) for attempt in range(100)}
    lanes = Lanes("a", 2)
    with pytest.raises(NsmError) as refused:
        lanes.open()
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert "busy" in refused.value.message
    kernel.taken.clear()
    with lanes.taken(), lanes.taken():
        assert kernel.names == [lane_name("a", 0), lane_name("a", 1)]
    assert len(kernel.given) == 3
    lanes.close()


def test_a_namespace_that_is_refused_is_said(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(syscalls, "new_netns", refuse)
    with pytest.raises(NsmError) as refused:
        Lanes("a", 2).open()
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert "a network namespace: No space left on device" in refused.value.message
    assert kernel.given == []
