"""What the log of the wire shows of calls, and what it never shows."""

# ruff: noqa: ASYNC240 - small files of /proc and of a temporary directory

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm.identity.tokens import PathTokens
from nsm.model.connection import Connection, MonitorScopeSelector, NetworkServiceRequest
from nsm.model.endpoint import NetworkService
from nsm.model.errors import NsmError, invalid
from nsm.model.path import Path as ConnectionPath
from nsm.model.path import PathSegment
from nsm.session.registry_path import RegistryPath, path_metadata
from nsm.transport import wirelog
from nsm.transport.call import Call
from nsm.transport.redaction import REMOVED, clean, label, metadata_of, without_tokens
from nsm.wire.methods import MONITOR_CONNECTIONS, NS_REGISTER
from tests.fakes.identity import FakeAuthority
from tests.unit.nsm.transport.bench import REQUEST, Bench, make_bench, request

TOKEN = (
    PathTokens(FakeAuthority().identity("/client/c"), max_lifetime=600).token("spiffe://example.org/m").text
)
SHOWN = "(token of spiffe://example.org/client/c for spiffe://example.org/m)"


@pytest.fixture
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("log") / "wire.jsonl"
    wirelog.start(path, "both")
    yield path
    wirelog.stop()


@pytest.fixture
async def recorded(log: Path, tmp_path: Path) -> Any:
    """A server and clients made while the log is on."""
    made = await make_bench(tmp_path)
    yield made
    await made.close()


def lines(log: Path, **where: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in found if where.items() <= line.items()]


async def test_both_sides_of_a_call_are_there_with_metadata_descriptors_and_status(
    recorded: Bench, log: Path
) -> None:
    async def swap(message: NetworkServiceRequest, call: Call) -> Connection:
        os.close(await call.receive_fd(message.connection.labels["netns"]))
        call.send_metadata([("path", "here")])
        call.send_fd(0)
        return message.connection

    recorded.on_request = swap
    netns = Path("/proc/self/ns/net").stat()
    url = f"inode://{netns.st_dev}/{netns.st_ino}"
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    await recorded.channel().unary(REQUEST, request(netns=url), timeout=5, fds=[fd])
    os.close(fd)
    back = os.fstat(0)
    for direction, peer in (
        ("out", "spiffe://example.org/server/s"),
        ("in", "spiffe://example.org/client/c"),
    ):
        asked, answered, ended = lines(log, direction=direction)
        assert (asked["what"], answered["what"], ended["what"]) == ("request", "answer", "end")
        assert (asked["at"], asked["peer"], asked["method"]) == ("both", peer, REQUEST.path)
        assert asked["message"] == {"connection": {"id": "one", "labels": {"netns": url}}}
        assert asked["fds"] == [url]
        assert 4 < asked["timeout"] <= 5
        assert asked["metadata"]["nsm-client-token"].startswith("(token of spiffe://example.org/client/c for")
        assert answered["metadata"]["path"] == "here"
        assert answered["message"] == asked["message"]["connection"]
        assert ended["status"] == "OK"
    assert lines(log, direction="in", what="answer")[0]["fds"] == [f"inode://{back.st_dev}/{back.st_ino}"]


async def test_a_stream_has_every_answer_and_its_end(recorded: Bench, log: Path) -> None:
    selector = MonitorScopeSelector(network_services=("a", "b", "break"))
    with pytest.raises(NsmError):
        async for _ in recorded.channel().stream(MONITOR_CONNECTIONS, selector):
            pass
    for direction in ("in", "out"):
        said = [line["what"] for line in lines(log, direction=direction)]
        assert said == ["request", "answer", "answer", "end"]
        assert lines(log, direction=direction)[-1]["status"] == "INTERNAL"


async def test_a_stream_that_is_left_says_so(recorded: Bench, log: Path) -> None:
    selector = MonitorScopeSelector(network_services=("a", "for ever"))
    answers = recorded.channel().stream(MONITOR_CONNECTIONS, selector)
    await anext(answers)
    await answers.aclose()
    assert lines(log, direction="out")[-1]["status"] == "CANCELLED"


async def test_a_refusal_and_malformed_bytes_are_told(recorded: Bench, log: Path) -> None:
    async def refuse(message: NetworkServiceRequest, call: Call) -> Connection:
        raise invalid("connection.id", "another", TOKEN)

    recorded.on_request = refuse
    with pytest.raises(NsmError):
        await recorded.channel().unary(REQUEST, request(), timeout=5)
    for direction in ("in", "out"):
        (end,) = lines(log, direction=direction, what="end")
        assert end["status"] == "INVALID_ARGUMENT"
        assert end["reason"] == f"connection.id: expected another, got '{SHOWN}'"
    exchange = wirelog.WireLog(log, "x")
    wire: Any = None
    exchange.exchange("in", REQUEST.path, "p", wire).received("request", b"\x0a\xff")
    exchange.close()
    assert lines(log, at="x")[0]["message"] == "(2 bytes that are no networkservice.NetworkServiceRequest)"


async def test_an_unknown_method_is_refused_as_without_a_log(recorded: Bench, log: Path) -> None:
    with pytest.raises(NsmError, match="UNIMPLEMENTED"):
        await recorded.channel().unary(NS_REGISTER, NetworkService(name="x"), timeout=5)
    assert lines(log)[-1]["status"] == "UNIMPLEMENTED"


async def test_no_token_is_in_the_file_wherever_it_stood(recorded: Bench, log: Path) -> None:
    segments = (PathSegment("client", "c", TOKEN), PathSegment(TOKEN, TOKEN, "no token at all"))
    connection = Connection(id=TOKEN, labels={TOKEN[:20]: f"see {TOKEN}"}, path=ConnectionPath(0, segments))
    pairs = [*path_metadata(RegistryPath(0, (TOKEN, "a secret"))), ("other", TOKEN)]
    channel = recorded.channel()
    await channel.unary(REQUEST, NetworkServiceRequest(connection), timeout=5, metadata=pairs)
    text = log.read_text()
    assert text.count(SHOWN) >= 2 * 6
    assert re.search(r"eyJ[\w-]*\.", text) is None
    assert TOKEN.split(".")[1] not in text
    assert "no token at all" not in text
    assert log.stat().st_mode & 0o777 == 0o600


async def test_what_is_made_without_a_log_is_not_wrapped(bench: Bench) -> None:
    channel = bench.channel()
    await channel.unary(REQUEST, request(), timeout=5)
    assert channel._link is not None
    assert type(channel._link.unary(REQUEST.path)).__module__.startswith("grpc.")


def test_a_label_shows_subject_and_audience_and_nothing_else() -> None:
    assert label(TOKEN) == SHOWN
    assert label("") == ""
    assert [label(text) for text in ("x", "a.b.c", "eyJ.eyJ.x")] == [REMOVED] * 3
    assert metadata_of([("a-bin", b"12"), ("nsm-client-token", "odd")]) == {
        "a-bin": "(2 bytes)",
        "nsm-client-token": REMOVED,
    }
    assert clean({"token": "odd", "list": [TOKEN, 1], "deep": {"token": TOKEN}}) == {
        "token": REMOVED,
        "list": [SHOWN, 1],
        "deep": {"token": SHOWN},
    }


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_signature_never_survives(before: str, after: str) -> None:
    signature = TOKEN.rpartition(".")[2]
    assert signature not in without_tokens(f"{before} {TOKEN} {after}")
