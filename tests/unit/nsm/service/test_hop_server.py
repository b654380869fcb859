"""The server half of a hop, call by call."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import pytest
from structlog.testing import capture_logs

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
    State,
)
from nsm.model.errors import Code, NsmError, denied, invalid
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment
from nsm.service import fds
from nsm.service.hop import HopServer, Incoming
from tests.fakes.hops import FakeCall, FakePolicies, FakeRole, FakeTokens, call_of, first, hop

ALL = MonitorScopeSelector()


async def ask(
    server: HopServer, connection: Connection, call: FakeCall | None = None, *preferences: Mechanism
) -> Connection:
    """One Request, its descriptors closed afterwards."""
    used = call or call_of()
    try:
        return await server.request(NetworkServiceRequest(connection, preferences), used.call)
    finally:
        used.close()


async def refused(server: HopServer, connection: Connection, call: FakeCall | None = None) -> NsmError:
    with pytest.raises(NsmError) as caught:
        await ask(server, connection, call)
    return caught.value


def settle() -> Any:
    """Let everything that is ready run."""

    async def turns() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    return turns()


async def test_the_answer_has_the_callers_place_both_tokens_and_our_segment() -> None:
    server = hop("nse", FakeRole())
    answer = await ask(server, first())
    assert (answer.id, answer.route.index, answer.state) == ("c-0", 0, State.UP)
    client, nse = answer.route.segments
    assert (client.token, nse.name, nse.token) == ("token of client", "nse", "nse-1 for client")
    assert nse.expires is not None
    (stored,) = server.connections()
    assert (stored.id, stored.route.index) == (nse.id, 1)


async def test_a_refresh_is_the_same_connection() -> None:
    role = FakeRole()
    server = hop("nse", role)
    answer = await ask(server, first())
    again = await ask(server, answer)
    assert [incoming.is_refresh for incoming in role.requests] == [False, True]
    assert role.requests[0].stored is None
    assert role.requests[1].stored is not None
    assert again.route.segments[1].id == answer.route.segments[1].id
    assert len(server.connections()) == 1


async def test_an_endpoint_trims_and_a_middle_hop_does_not() -> None:
    tail = Path(0, (PathSegment("client", "c-0"), PathSegment("nse", "n"), PathSegment("old", "o")))
    asked = replace(first(), path=tail)
    assert len((await ask(hop("nse", FakeRole()), asked)).route.segments) == 2
    assert len((await ask(hop("nse", FakeRole(), is_endpoint=False), asked)).route.segments) == 3


async def test_the_policies_see_the_path_with_both_tokens() -> None:
    policies = FakePolicies()
    await ask(hop("nse", FakeRole(), policies=policies), first())
    (seen,) = policies.seen
    assert (seen.index, [s.token for s in seen.segments]) == (1, ["token of client", "nse-1 for client"])


async def test_a_refusal_is_one_audit_event_and_leaves_nothing() -> None:
    policies, role = FakePolicies(), FakeRole()
    policies.refusal = denied("tokens_chained", "no")
    server = hop("nse", role, policies=policies)
    with capture_logs() as logs:
        error = await refused(server, first())
    assert error.code is Code.PERMISSION_DENIED
    (audit,) = [entry for entry in logs if entry["event"] == "audit"]
    assert (audit["rule"], audit["peer"], audit["connection"]) == (
        "tokens_chained", "spiffe://example.org/client", "c-0",
    )  # fmt: skip
    assert (audit["decision"], audit["method"]) == ("denied", "Request")
    assert (role.requests, server.connections()) == ([], ())


async def test_nobody_refreshes_or_closes_the_connection_of_another_client() -> None:
    class Owned(FakePolicies):
        def owner(self, known: Path, asked: Path) -> None:
            if known.segments[0].token != asked.segments[0].token:
                raise denied("connection_owner", "no")

    role = FakeRole()
    server = hop("nse", role, policies=Owned(), is_endpoint=False)
    answer = await ask(server, first())
    known = server.connections()
    with capture_logs() as logs:
        assert (await refused(server, answer, call_of("thief"))).field == "connection_owner"
        with pytest.raises(NsmError) as caught:
            await server.close(answer, call_of("thief").call)
        assert caught.value.field == "connection_owner"
    audits = [entry["method"] for entry in logs if entry["event"] == "audit"]
    assert audits == ["Request", "Close"]
    assert (len(role.requests), role.closings, server.connections()) == (1, [], known)


async def test_a_refused_refresh_keeps_the_connection() -> None:
    policies = FakePolicies()
    server = hop("nse", FakeRole(), policies=policies)
    answer = await ask(server, first())
    policies.refusal = denied("tokens_expired", "no")
    await refused(server, answer)
    assert len(server.connections()) == 1


@pytest.mark.parametrize(
    ("connection", "code", "field"),
    [
        (
            replace(first(), path=Path(3, first().route.segments)),
            Code.INVALID_ARGUMENT,
            "connection.path.index",
        ),
        (replace(first(), id="other"), Code.INVALID_ARGUMENT, "connection.id"),
        (
            replace(first(), path=Path(0, (PathSegment(),) * 65)),
            Code.INVALID_ARGUMENT,
            "connection.path.path_segments",
        ),
        (Connection(id="c"), Code.FAILED_PRECONDITION, "connection.path.index"),
    ],
)
async def test_a_path_nobody_sends_is_refused_by_field(
    connection: Connection, code: Code, field: str
) -> None:
    role = FakeRole()
    server = hop("nse", role)
    error = await refused(server, connection)
    assert (error.code, error.field) == (code, field)
    assert (role.requests, server.connections()) == ([], ())


async def test_a_call_without_token_is_refused_before_anything_is_built() -> None:
    role = FakeRole()
    error = await refused(hop("nse", role), first(), replace(call_of(), metadata=()))
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "connection.path.path_segments[0].expires")
    assert role.requests == []


async def test_a_failed_first_request_leaves_nothing_and_may_be_asked_again() -> None:
    async def fail(incoming: Incoming) -> Connection:
        raise invalid("mechanism", "something else", incoming.connection.id)

    role = FakeRole(fail)
    server = hop("nse", role)
    await refused(server, first())
    assert server.connections() == ()
    role.act = None
    assert (await ask(server, first())).state is State.UP


async def test_calls_of_one_connection_wait_for_each_other_and_others_do_not() -> None:
    gate, running, most = asyncio.Event(), {"a": 0, "b": 0}, {"a": 0, "b": 0}

    async def slow(incoming: Incoming) -> Connection:
        key = incoming.connection.network_service
        running[key] += 1
        most[key] = max(most[key], running[key])
        await gate.wait()
        running[key] -= 1
        return incoming.connection

    role = FakeRole(slow)
    server = hop("nse", role, new_id=iter(f"nse-{n}" for n in range(9)).__next__)
    path = Path(0, (PathSegment("client", "c-a"), PathSegment("nse", "mine")))
    same = replace(first("c-a", "a"), path=path)
    tasks = [asyncio.create_task(ask(server, same)) for _ in range(3)]
    tasks += [asyncio.create_task(ask(server, first(f"c-b{number}", "b"))) for number in range(3)]
    await settle()
    assert (running, len(role.requests)) == ({"a": 1, "b": 3}, 4)
    gate.set()
    await asyncio.gather(*tasks)
    assert most == {"a": 1, "b": 3}
    assert len(server.connections()) == 4


async def test_waiting_for_an_earlier_call_ends_at_the_deadline() -> None:
    async def forever(incoming: Incoming) -> Connection:
        await asyncio.Event().wait()
        return incoming.connection

    server = hop("nse", FakeRole(forever), new_id=lambda: "mine")
    blocked = asyncio.create_task(refused(server, first(), call_of(timeout=0.4)))
    await settle()
    busy = await refused(server, first(), call_of(timeout=0.05))
    assert (busy.code, "busy" in busy.message) == (Code.DEADLINE_EXCEEDED, True)
    assert (await blocked).code is Code.DEADLINE_EXCEEDED
    assert server.connections() == ()


async def test_200_requests_at_once_all_end_up_as_connections() -> None:
    server = hop("nse", FakeRole())
    answers = await asyncio.gather(*(ask(server, first(f"c-{number}")) for number in range(200)))
    assert [answer.id for answer in answers] == [f"c-{number}" for number in range(200)]
    assert len(server.connections()) == 200
    await server.stop()


async def test_reselect_closes_what_is_stored_and_builds_anew() -> None:
    role = FakeRole()
    server = hop("mgr", role, is_endpoint=False)
    answer = await ask(server, first())
    again = await ask(server, replace(answer, state=State.RESELECT_REQUESTED))
    assert [closing.reason for closing in role.closings] == ["reselect"]
    assert role.requests[1].connection.state is State.RESELECT_REQUESTED
    assert not role.requests[1].is_refresh
    assert again.state is State.UP


async def test_a_failed_reselect_ends_the_connection_for_watchers() -> None:
    role = FakeRole()
    server = hop("mgr", role, is_endpoint=False)
    answer = await ask(server, first())

    async def fail(_incoming: Incoming) -> Connection:
        raise NsmError(Code.NOT_FOUND, "no endpoint")

    role.act, role.close_error = fail, NsmError(Code.UNAVAILABLE, "gone")
    async with aclosing(_events(server)) as events:
        await anext(events)
        await refused(server, replace(answer, state=State.RESELECT_REQUESTED))
        assert (await anext(events)).type is EventType.DELETE
    assert server.connections() == ()


async def test_close_gives_the_role_the_stored_connection_with_fresh_tokens() -> None:
    role = FakeRole()
    server = hop("nse", role)
    answer = await ask(server, replace(first(), labels={"a": "1"}))
    call = replace(
        call_of(), metadata=tuple((k, v.replace("token of", "newer of")) for k, v in call_of().metadata)
    )
    await server.close(replace(answer, labels={}), call.call)
    (closing,) = role.closings
    assert (closing.reason, closing.connection.labels) == ("call", {"a": "1"})
    assert closing.connection.route.segments[0].token == "newer of client"
    assert closing.arrived is not None
    assert server.connections() == ()
    await server.close(answer, call_of().call)
    assert len(role.closings) == 1


@pytest.mark.parametrize("is_forgetful", [False, True])
async def test_close_of_an_unknown_connection_goes_on_only_where_the_path_is_all_that_is_known(
    is_forgetful: bool,
) -> None:
    role = FakeRole()
    server = hop("mgr", role, is_endpoint=False, is_forgetful=is_forgetful)
    behind = (PathSegment(name="mgr", id="m-1"), PathSegment(name="fwd", id="f-1"))
    path = Path(0, (*first().route.segments, *behind))
    await server.close(replace(first(), path=path), call_of().call)
    closed = [(each.connection.id, each.connection.route.following) for each in role.closings]
    assert closed == ([("m-1", behind[1])] if is_forgetful else [])
    await server.stop()


async def test_a_failed_close_is_told_and_the_connection_is_gone() -> None:
    role = FakeRole()
    server = hop("nse", role)
    answer = await ask(server, first())
    role.close_error = NsmError(Code.UNAVAILABLE, "next hop away")
    with pytest.raises(NsmError):
        await server.close(answer, call_of().call)
    assert server.connections() == ()


def _events(server: HopServer, selector: MonitorScopeSelector = ALL) -> AsyncGenerator[ConnectionEvent, None]:
    return server.monitor(selector, call_of().call)


async def test_watchers_get_the_state_at_once_then_changes_of_what_they_selected() -> None:
    role = FakeRole()
    server = hop("nse", role)
    async with (
        aclosing(_events(server)) as everything,
        aclosing(_events(server, MonitorScopeSelector((PathSegment(id="c-1"),)))) as one,
    ):
        assert (await anext(everything)).connections == {}
        assert (await anext(one)).type is EventType.INITIAL_STATE_TRANSFER
        await ask(server, first("c-0"))
        answer = await ask(server, first("c-1"))
        event = await anext(one)
        own = answer.route.segments[1].id
        assert (event.type, list(event.connections)) == (EventType.UPDATE, [own])
        assert event.connections[own].route.index == 1
        await server.close(answer, call_of().call)
        assert (await anext(one)).type is EventType.DELETE
        assert [(await anext(everything)).type for _ in range(2)] == [EventType.UPDATE, EventType.DELETE]
    async with aclosing(_events(server)) as later:
        assert len((await anext(later)).connections) == 1
    await server.stop()


async def test_a_slow_watcher_holds_one_event_a_connection() -> None:
    server = hop("nse", FakeRole())
    answer = await ask(server, first())
    own = answer.route.segments[1].id
    async with aclosing(_events(server)) as events:
        await anext(events)
        for number in range(50):
            server.publish(own, lambda c, n=number: replace(c, labels={"n": str(n)}))  # type: ignore[misc]
        assert (await anext(events)).connections[own].labels == {"n": "49"}
        pending = asyncio.ensure_future(anext(events))
        await settle()
        assert not pending.done()
        await server.stop()
        with pytest.raises(StopAsyncIteration):
            await pending


async def test_publish_tells_a_state_and_ignores_unknown_ids() -> None:
    server = hop("mgr", FakeRole(), is_endpoint=False)
    own = (await ask(server, first())).route.segments[1].id
    async with aclosing(_events(server)) as events:
        await anext(events)
        server.publish("nobody", lambda c: replace(c, state=State.DOWN))
        server.publish(own, lambda c: replace(c, state=State.DOWN))
        assert (await anext(events)).connections[own].state is State.DOWN
    assert server.connections()[0].state is State.UP


@pytest.mark.parametrize(
    ("code", "is_endpoint", "is_down"),
    [
        (Code.UNAVAILABLE, False, True),
        (Code.UNKNOWN, False, True),
        (Code.DEADLINE_EXCEEDED, False, True),
        (Code.INVALID_ARGUMENT, False, False),
        (Code.PERMISSION_DENIED, False, False),
        (Code.UNAVAILABLE, True, False),
    ],
)
async def test_a_failed_refresh_keeps_the_connection_and_is_down_if_the_path_may_be(
    code: Code, is_endpoint: bool, is_down: bool
) -> None:
    role = FakeRole()
    server = hop("mgr", role, is_endpoint=is_endpoint)
    answer = await ask(server, first())

    async def fail(_incoming: Incoming) -> Connection:
        raise NsmError(code, "no")

    role.act = fail
    await refused(server, answer)
    assert (len(server.connections()), role.closings) == (1, [])
    async with aclosing(_events(server)) as events:
        (told,) = (await anext(events)).connections.values()
    assert told.state is (State.DOWN if is_down else State.UP)
    role.act = None
    await ask(server, answer)
    async with aclosing(_events(server)) as events:
        (told,) = (await anext(events)).connections.values()
    assert told.state is State.UP


async def test_a_connection_nobody_refreshes_is_closed_and_a_refresh_puts_it_off() -> None:
    role = FakeRole()
    server = hop("nse", role)
    closed = asyncio.Event()
    role_close = role.close

    async def close(closing: Any) -> None:
        await role_close(closing)
        closed.set()

    role.close = close  # type: ignore[method-assign]
    answer = await ask(server, first(), call_of(timeout=1.0, lifetime=1.1))
    await ask(server, answer, call_of(timeout=1.0, lifetime=1.3))
    async with asyncio.timeout(5):
        await closed.wait()
    assert [closing.reason for closing in role.closings] == ["expired"]
    await settle()
    assert server.connections() == ()


async def test_an_expiry_that_comes_during_a_refresh_waits_for_it() -> None:
    role = FakeRole()
    server = hop("nse", role)
    answer = await ask(server, first(), call_of(timeout=1.0, lifetime=1.05))
    own = answer.route.segments[1].id
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(incoming: Incoming) -> Connection:
        started.set()
        await gate.wait()
        return incoming.connection

    role.act = slow
    refresh = asyncio.create_task(ask(server, answer))
    await started.wait()
    while server._expiries.is_armed(own):  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.005)
    gate.set()
    await refresh
    await settle()
    assert (role.closings, len(server.connections())) == ([], 1)
    await server.stop()


async def test_a_jump_of_the_wall_clock_closes_nothing() -> None:
    now = [time.time()]
    tokens = FakeTokens("nse", clock=lambda: now[0])
    role = FakeRole()
    server = hop("nse", role, clock=lambda: now[0], tokens=tokens)
    answer = await ask(server, first())
    now[0] += 86400
    await settle()
    assert len(server.connections()) == 1
    own = answer.route.segments[1].id
    left = server._expiries._timers[own].when() - asyncio.get_running_loop().time()
    assert 500 < left < 600
    await server.stop()


async def test_an_adopted_connection_is_known_to_watchers_refresh_and_close() -> None:
    role = FakeRole()
    before = hop("fwd", FakeRole(), is_endpoint=False)
    answer = await ask(before, first())
    (kept,) = before.connections()
    await before.stop()
    server = hop("fwd", role, is_endpoint=False)
    server.adopt(kept, 100)
    async with aclosing(_events(server)) as events:
        assert list((await anext(events)).connections) == [kept.id]
    await ask(server, answer)
    assert role.requests[0].is_refresh
    await server.close(answer, call_of().call)
    assert [closing.reason for closing in role.closings] == ["call"]


async def test_an_adopted_connection_expires() -> None:
    role = FakeRole()
    server = hop("fwd", role, is_endpoint=False)
    server.adopt(replace(first(), path=Path(0, (PathSegment("fwd", "c-0"),))), 0.0)
    async with asyncio.timeout(5):
        while server.connections():  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.005)
    await settle()
    assert [closing.reason for closing in role.closings] == ["expired"]


async def test_close_connection_is_as_if_the_caller_had_closed() -> None:
    role = FakeRole()
    server = hop("mgr", role, is_endpoint=False)
    own = (await ask(server, first())).route.segments[1].id
    await server.close_connection(own, "role")
    await server.close_connection(own, "role")
    assert [closing.reason for closing in role.closings] == ["role"]
    assert server.connections() == ()


# -- a caller that goes away, deadlines, rollback ---------------------------------------------------------


async def test_a_first_request_whose_caller_has_gone_is_closed_again() -> None:
    started, gate, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(incoming: Incoming) -> Connection:
        started.set()
        await gate.wait()
        finished.set()
        return incoming.connection

    role = FakeRole(slow)
    server = hop("nse", role)
    caller = asyncio.create_task(ask(server, first()))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    gate.set()
    await finished.wait()
    await settle()
    assert [closing.reason for closing in role.closings] == ["rollback"]
    assert server.connections() == ()
    assert len(server._lanes) == 0


async def test_a_refresh_whose_caller_has_gone_stays() -> None:
    role = FakeRole()
    server = hop("nse", role)
    answer = await ask(server, first())
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(incoming: Incoming) -> Connection:
        started.set()
        await gate.wait()
        return incoming.connection

    role.act = slow
    caller = asyncio.create_task(ask(server, answer))
    await started.wait()
    caller.cancel()
    gate.set()
    await asyncio.wait({caller})
    await settle()
    assert (role.closings, len(server.connections())) == ([], 1)
    await server.stop()


async def test_a_role_that_is_not_done_at_the_deadline_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def forever(incoming: Incoming) -> Connection:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return incoming.connection

    server = hop("nse", FakeRole(forever))
    error = await refused(server, first(), call_of(timeout=0.05))
    assert (error.code, cancelled.is_set()) == (Code.DEADLINE_EXCEEDED, True)
    assert server.connections() == ()


async def test_the_role_is_given_a_little_less_than_the_caller() -> None:
    role = FakeRole()
    server = hop("nse", role)
    before = asyncio.get_running_loop().time()
    await ask(server, first(), call_of(timeout=10.0))
    assert 9.5 <= role.requests[0].deadline - before < 10.0
    await server.stop()


async def test_an_answer_that_is_not_on_our_segment_is_rolled_back() -> None:
    async def astray(incoming: Incoming) -> Connection:
        return replace(incoming.connection, id="elsewhere")

    role = FakeRole(astray)
    server = hop("nse", role)
    error = await refused(server, first())
    assert (error.code, [closing.reason for closing in role.closings]) == (Code.INTERNAL, ["rollback"])
    assert server.connections() == ()


async def test_stop_ends_calls_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsm.service.hop.STOP_GRACE", 0.01)
    started = asyncio.Event()

    async def forever(incoming: Incoming) -> Connection:
        started.set()
        await asyncio.Event().wait()
        return incoming.connection

    server = hop("nse", FakeRole(forever))
    caller = asyncio.create_task(ask(server, first()))
    await started.wait()
    await server.stop()
    with pytest.raises(asyncio.CancelledError):
        await caller


# -- descriptors --------------------------------------------------------------------------------------------


def kernel(url: str) -> Mechanism:
    return Mechanism(LOCAL, KERNEL, {INODE_URL: url, "name": "nsm-1"})


def inode_of(url: str) -> int:
    return FilePath(url.removeprefix("file://")).stat().st_ino


def open_fds() -> int:
    return sum(1 for _ in FilePath("/proc/self/fd").iterdir())


async def test_descriptors_arrive_as_files_and_are_closed_with_the_call(tmp_path: FilePath) -> None:
    netns = tmp_path / "netns"
    netns.touch()
    inode = netns.stat().st_ino
    seen: list[tuple[str, int]] = []

    async def look(incoming: Incoming) -> Connection:
        for mechanism in (*incoming.preferences, *filter(None, [incoming.connection.mechanism])):
            url = mechanism.get(INODE_URL)
            seen.append((url, inode_of(url)))
        return incoming.connection

    server = hop("nse", FakeRole(look))
    before = open_fds()
    call = call_of()
    fd = os.open(netns, os.O_RDONLY)
    url = fds.inode_url(fd)
    call.arriving[url] = fd
    answer = await ask(server, replace(first(), mechanism=kernel(url)), call, kernel(url), kernel(""))
    assert [number for _, number in seen[:1] + seen[2:]] == [inode, inode]
    assert seen[0][0].startswith("file:///proc/self/fd/")
    assert answer.mechanism is not None
    assert answer.mechanism.get(INODE_URL) == url
    assert open_fds() == before
    await server.stop()


async def test_a_descriptor_goes_back_with_the_answer(tmp_path: FilePath) -> None:
    netns = tmp_path / "netns"
    netns.touch()

    async def give(incoming: Incoming) -> Connection:
        return replace(incoming.connection, mechanism=kernel(f"file://{netns}"))

    server = hop("nse", FakeRole(give))
    call = call_of()
    answer = await server.request(NetworkServiceRequest(first()), call.call)
    status = netns.stat()
    url = f"inode://{status.st_dev}/{status.st_ino}"
    assert answer.mechanism is not None
    assert (answer.mechanism.get(INODE_URL), list(call.sent)) == (url, [url])
    assert server.connections()[0].mechanism == answer.mechanism
    call.close()
    await server.stop()


async def test_over_tcp_no_url_of_a_descriptor_is_answered(tmp_path: FilePath) -> None:
    async def give(incoming: Incoming) -> Connection:
        return replace(incoming.connection, mechanism=kernel(f"file://{tmp_path}"))

    call = call_of()
    call.peer = replace(call.peer, passes_fds=False)
    answer = await ask(hop("nse", FakeRole(give)), first(), call)
    assert answer.mechanism is not None
    assert answer.mechanism.parameters == {"name": "nsm-1"}


async def test_a_namespace_that_is_gone_when_the_answer_leaves_rolls_back(tmp_path: FilePath) -> None:
    async def give(incoming: Incoming) -> Connection:
        return replace(incoming.connection, mechanism=kernel(f"file://{tmp_path}/gone"))

    role = FakeRole(give)
    error = await refused(hop("nse", role), first())
    assert (error.code, error.field) == (Code.FAILED_PRECONDITION, "mechanism.parameters.inodeURL")
    assert [closing.reason for closing in role.closings] == ["rollback"]


async def test_a_descriptor_that_never_arrives_is_named_and_leaves_nothing() -> None:
    role = FakeRole()
    server = hop("nse", role)
    error = await refused(server, replace(first(), mechanism=kernel("inode://4/5")), call_of(timeout=0.05))
    assert (error.code, "inode://4/5" in error.message) == (Code.DEADLINE_EXCEEDED, True)
    assert (role.requests, server.connections()) == ([], ())


@pytest.mark.parametrize("place", ["connection", "preference"])
async def test_a_path_that_a_peer_names_is_refused_and_never_opened(tmp_path: FilePath, place: str) -> None:
    """It would be opened with our rights, where it leads to from here: to any namespace of the node."""
    role = FakeRole()
    server = hop("nse", role)
    theirs = kernel(f"file://{tmp_path}")
    connection = replace(first(), mechanism=theirs) if place == "connection" else first()
    with pytest.raises(NsmError) as caught:
        await ask(server, connection, call_of(), *([theirs] if place == "preference" else []))
    error = caught.value
    assert (error.code, error.field) == (Code.INVALID_ARGUMENT, "mechanism.parameters.inodeURL")
    assert "expected inode://" in error.message
    assert (role.requests, server.connections()) == ([], ())
    await server.stop()


async def test_a_path_that_comes_over_tcp_or_with_a_close_is_left_out(tmp_path: FilePath) -> None:
    role = FakeRole()
    server = hop("nse", role)
    theirs = kernel(f"file://{tmp_path}")
    call = call_of()
    call.peer = replace(call.peer, passes_fds=False)
    answer = await ask(server, replace(first(), mechanism=theirs), call, theirs)
    (incoming,) = role.requests
    for mechanism in (*incoming.preferences, incoming.connection.mechanism):
        assert mechanism is not None
        assert mechanism.parameters == {"name": "nsm-1"}
    await server.close(replace(answer, mechanism=theirs), call_of().call)
    (closing,) = role.closings
    assert closing.arrived is not None
    assert closing.arrived.mechanism is not None
    assert closing.arrived.mechanism.parameters == {"name": "nsm-1"}
    await server.stop()


@pytest.mark.parametrize("is_refused", [False, True])
async def test_descriptors_go_with_the_call_also_where_it_never_asked_for_them(
    tmp_path: FilePath, is_refused: bool
) -> None:
    policies = FakePolicies()
    if is_refused:
        policies.refusal = NsmError(Code.PERMISSION_DENIED, "no")
    server = hop("nse", FakeRole(), policies=policies)
    fd = os.open(tmp_path, os.O_PATH)
    url = fds.inode_url(fd)
    call = call_of()
    call.arriving[url] = fd
    preference = Mechanism("LOCAL", "KERNEL", {"inodeURL": url})
    try:
        await server.request(NetworkServiceRequest(first(), (preference, preference)), call.call)
    except NsmError:
        assert is_refused
    assert call.released == [url]
    call.close()
    await server.stop()


async def test_a_close_goes_on_without_its_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nsm.service.hop.DESCRIPTOR_WAIT", 0.01)
    role = FakeRole()
    server = hop("nse", role)
    answer = await ask(server, first())
    await server.close(replace(answer, mechanism=kernel("inode://4/5")), call_of().call)
    (closing,) = role.closings
    assert closing.arrived is not None
    assert closing.arrived.mechanism is not None
    assert closing.arrived.mechanism.parameters == {"name": "nsm-1"}
