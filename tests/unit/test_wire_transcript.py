"""A transcript tells what was said, alike in every run, and what its two ends saw differently."""

from typing import Any
from uuid import uuid4

from tests.interop.recorder import MONITOR, REQUEST, WATCHES, Line, transcript

HOPS = ("client", "manager", "forwarder")


def exchange(caller: str, callee: str, own: str, *, answer: str = "", call: int = 1) -> list[Line]:
    """Both ends of a Request whose caller has the id ``own``, the callee's line first."""
    message = {"connection": {"id": own, "path": {"path_segments": [{"name": caller, "id": own}]}}}
    ends: list[Line] = []
    for direction, at, peer in (("in", callee, caller), ("out", caller, callee)):
        head: dict[str, Any] = {
            "at": at,
            "direction": direction,
            "call": call,
            "method": REQUEST,
            "peer": f"spiffe://example.org/x/{peer}",
        }
        seen = answer if direction == "in" and answer else own
        ends += [
            {**head, "what": "request", "time": call * 1.5, "timeout": 4.2, "message": message},
            {**head, "what": "answer", "message": {"id": seen}, "metadata": {"user-agent": "some"}},
            {**head, "what": "end", "status": "OK"},
        ]
    return ends


def test_two_runs_are_alike_whatever_they_made_up_and_came_first() -> None:
    texts = set()
    for order in (1, -1):
        first, second = (exchange(*pair, str(uuid4()), call=order) for pair in (HOPS[:2], HOPS[1:]))
        lines = [*first, *second][::order] if order > 0 else [*second, *first]
        texts.add(transcript({"Request": lines}, HOPS, "nse", {}))
    (text,) = texts
    assert text.index("client -> manager") < text.index("manager -> forwarder")
    assert "<id 1>" in text
    assert "<id 2>" in text
    assert text.count("## ") == 2
    assert "otherwise" not in text


def test_another_value_is_a_difference_and_so_is_what_the_ends_saw() -> None:
    same = transcript({"Request": exchange("client", "manager", "a")}, HOPS, "nse", {})
    assert transcript({"Request": exchange("client", "manager", "b")}, HOPS, "nse", {}) != same
    text = transcript({"Request": exchange("client", "manager", "a", answer="c")}, HOPS, "nse", {})
    assert "seen otherwise" in text
    assert "id: c" in text


def test_a_monitor_is_told_by_its_changes() -> None:
    def event(kind: str, state: str) -> dict[str, Any]:
        path = {"index": 1, "path_segments": [{"name": "client"}, {"name": "manager"}]}
        return {"type": kind, "connections": {"x": {"state": state, "path": path}}}

    head = {
        "at": "client",
        "direction": "out",
        "call": 1,
        "method": MONITOR,
        "peer": "spiffe://example.org/x/manager",
    }
    events = [event("INITIAL_STATE_TRANSFER", "UP"), event("UPDATE", "UP"), event("UPDATE", "DOWN")]
    lines = [{**head, "what": "request", "message": {}}]
    lines += [{**head, "what": "answer", "message": each} for each in events]
    text = transcript({WATCHES: lines}, HOPS, "nse", {})
    assert "INITIAL_STATE_TRANSFER: UP at 1 of client manager" in text
    assert text.count("UPDATE") == 1
    assert "DOWN" in text
    assert "INITIAL" not in transcript({"Request": lines}, HOPS, "nse", {})
