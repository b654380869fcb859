"""What a soak calls growth: what is counted must stay, what has a size may move a little."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from perf.soak.held import Held, kind
from perf.soak.verdict import Checkpoint, growths, least, slope


def soaked(*held: Held, each: int = 100) -> list[str]:
    """What grew over checkpoints with ``each`` connections made between them."""
    checkpoints = [
        Checkpoint(60.0 * number, each * number, {"n1/forwarder": one}) for number, one in enumerate(held)
    ]
    return [str(growth) for growth in growths(checkpoints) if growth.is_leak]


def sockets(*numbers: int) -> list[Held]:
    return [Held({"socket": number}, 4, 50_000) for number in numbers]


def memory(*kib: int) -> list[Held]:
    return [Held({}, 4, number, objects=100_000) for number in kib]


def test_what_stays_is_no_growth() -> None:
    assert soaked(*sockets(9, 9, 9, 9, 9, 9, 9)) == []


@pytest.mark.parametrize("numbers", [(9, 9, 9, 9, 10, 10, 10), (9, 9, 10, 10, 11, 11, 12)])
def test_one_descriptor_more_is_growth(numbers: Sequence[int]) -> None:
    (line,) = soaked(*sockets(*numbers))
    assert line.startswith("n1/forwarder: fd socket 9 to 1")


def test_a_connection_that_was_being_closed_is_none() -> None:
    assert soaked(*sockets(9, 9, 9, 9, 9, 12, 9)) == []


def test_a_stream_that_was_being_opened_anew_is_none() -> None:
    assert soaked(*sockets(9, 9, 8, 9, 9, 8, 9, 9, 9, 9, 9, 9, 9)) == []


def test_what_comes_in_the_warm_up_is_none() -> None:
    assert soaked(*sockets(5, 9, 9, 9, 9, 9, 9)) == []


def test_a_task_that_is_new_and_stays_is_growth() -> None:
    before, after = Held({}, 4, 1, {"main": 1}), Held({}, 4, 1, {"main": 1, "watch": 1})
    assert soaked(*[before] * 4, *[after] * 3) == ["n1/forwarder: task watch 0 to 1"]


def test_a_thread_more_is_growth() -> None:
    assert soaked(*[Held({}, 4, 1)] * 4, *[Held({}, 5, 1)] * 3) == ["n1/forwarder: threads 4 to 5"]


def test_threads_of_a_pool_have_a_limit_of_their_own() -> None:
    few, more = Held({}, 4, 1, pools={"netlink": 1}), Held({}, 4, 1, pools={"netlink": 2, "asyncio": 1})
    assert soaked(*[few] * 4, *[more] * 3) == []
    checkpoints = [Checkpoint(60.0 * n, n, {"a": few if n < 4 else more}) for n in range(7)]
    shown = {
        each.measure: (each.first, each.last) for each in growths(checkpoints) if each.first != each.last
    }
    assert shown == {"threads of asyncio": (0, 1), "threads of netlink": (1, 2)}


def test_memory_may_move_by_a_share_but_not_grow_with_the_connections() -> None:
    assert soaked(*memory(50_000, 50_000, 50_300, 53_600, 53_500, 53_900, 53_900)) == []
    (line,) = soaked(*memory(*(50_000 + 600 * number for number in range(7))))
    assert line == "n1/forwarder: memory (KiB) 50,900 to 53,300"


@pytest.mark.parametrize(
    ("held", "line"),
    [
        (lambda n: Held({}, 4, 50_000, objects=10_000 + 80 * n), "objects 10,120 to 10,440"),
        (lambda n: Held({}, 4, 50_000, blocks=10_000 + 150 * n), "blocks 10,225 to 10,825"),
        (lambda n: Held({}, 4, 50_000, heap_kib=1_000 + 20 * n), "heap (KiB) 1,030 to 1,110"),
    ],
)
def test_what_stays_for_each_connection_is_growth(held: Callable[[int], Held], line: str) -> None:
    assert soaked(*map(held, range(7))) == [f"n1/forwarder: {line}"]


@pytest.mark.parametrize("when", [4, 5, 7, 9])
def test_what_is_bigger_once_and_stays_so_is_none(when: int) -> None:
    """A table that doubles."""
    before = Held({}, 4, 50_000, objects=10_000, blocks=100_000, heap_kib=9_000)
    after = replace(before, objects=11_000, blocks=110_000, heap_kib=10_100, anonymous_kib=54_000)
    assert soaked(*[before] * when, *[after] * (12 - when)) == []


@pytest.mark.parametrize("when", [5, 7, 9])
def test_a_descriptor_that_is_there_once_and_stays_is_growth(when: int) -> None:
    (line,) = soaked(*sockets(*[9] * when, *[10] * (12 - when)))
    assert line.startswith("n1/forwarder: fd socket 9 to ")


def test_numbers_that_go_up_and_down_are_none() -> None:
    """Descriptors that are kept for some seconds, of a run on VPP."""
    first = (13, 14, 13, 13, 14, 13, 13, 12, 13, 12, 13, 14, 14, 14, 13)
    assert soaked(*sockets(*first, 14, 13, 13, 12, 13, 14, 14, 13, 14, 14, 14, 15)) == []


def test_too_few_checkpoints_are_not_judged() -> None:
    assert soaked(*sockets(1, 2, 3, 4, 5)) == []


def test_a_call_that_is_under_way_at_one_look_does_not_count() -> None:
    idle = Held({"socket": 4}, 2, 10, {"main": 1}, objects=7)
    busy = Held({"socket": 5, "net": 1}, 3, 12, {"main": 1, "call": 1}, objects=9)
    assert least([{"a": idle}, {"a": busy}])["a"] == Held(
        {"socket": 4, "net": 0}, 2, 12, {"main": 1, "call": 0}, objects=9
    )
    assert least([{"a": busy}, {"a": busy, "b": idle}]) == {"a": busy, "b": idle}


def test_one_odd_checkpoint_does_not_move_the_slope() -> None:
    assert slope([(0.0, 1.0), (1.0, 3.0), (2.0, 500.0), (3.0, 7.0), (4.0, 9.0)]) == 2.0
    assert slope([(1.0, 1.0), (1.0, 9.0)]) == 0.0


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("socket:[12345]", "socket"),
        ("net:[4026532281]", "net"),
        ("anon_inode:[eventpoll]", "anon_inode:[eventpoll]"),
        ("pipe:[77]", "pipe"),
        ("/dev/null", "/dev/null"),
        ("/run/x/store.sqlite", "file"),
    ],
)
def test_kinds_of_descriptors(target: str, name: str) -> None:
    assert kind(target) == name
