"""Bytes: large messages, slow readers, ends and restarts."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
)
from nsm.model.errors import Code, NsmError
from nsm.transport.call import Call
from nsm.transport.pump import Pump
from nsm.transport.server import Server
from nsm.transport.wire import READ_SIZE, Wire
from nsm.wire import methods
from tests.fakes.fd_peer import Transceiver
from tests.unit.nsm.transport.bench import REQUEST, Bench, ask, assert_no_leak, open_fds, request

LARGE = "x" * 3_900_000


class _Plain:
    """In the place of TLS: what it is given, and a refusal for ``alert``."""

    def decrypt(self, data: bytes) -> tuple[list[bytes], bool]:
        if data == b"alert":
            error = ssl.SSLError(1, "the peer's alert")
            error.reason = "SSLV3_ALERT_BAD_CERTIFICATE"
            raise error
        return [data] if data else [], False

    def encrypt(self, data: bytes) -> bytes:
        return data

    def pending(self) -> bytes:
        return b""


@dataclass(frozen=True)
class Ends:
    """A pump without TLS that is not started, and the far end of either side."""

    pump: Pump
    peer: socket.socket
    grpc: socket.socket


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    (wire, peer), (private, grpc) = socket.socketpair(), socket.socketpair()
    tls: Any = _Plain()
    pump = Pump(Wire(wire), tls, private, lambda _: None)
    yield Ends(pump, peer, grpc)
    pump.close()
    peer.close()
    grpc.close()


async def test_an_alert_that_came_before_we_wrote_is_why_it_ended(ends: Ends) -> None:
    ends.peer.send(b"alert")
    ends.peer.close()
    ends.grpc.send(b"a request")
    ends.pump._read_private()
    assert ends.pump.is_closed
    assert "bad certificate" in ends.pump.reason


async def test_an_answer_that_came_before_we_wrote_reaches_grpc(ends: Ends) -> None:
    ends.peer.send(b"an answer")
    ends.peer.close()
    ends.grpc.send(b"a request")
    ends.pump._read_private()
    assert ends.grpc.recv(100) == b"an answer"
    assert ends.pump.is_closed
    assert ends.pump.reason == "Broken pipe"


async def test_so_it_is_for_what_had_waited_to_leave(ends: Ends) -> None:
    ends.peer.send(b"alert")
    ends.pump._to_wire += b"a request"
    ends.peer.close()
    ends.pump._write_wire()
    assert ends.pump.is_closed
    assert "bad certificate" in ends.pump.reason


@pytest.mark.parametrize("place", [0, 1], ids=["unix", "tcp"])
async def test_large_messages_arrive_whole_both_ways_at_once(bench: Bench, place: int) -> None:
    async def same(message: NetworkServiceRequest, call: Call) -> Connection:
        return message.connection

    bench.on_request = same
    channel = bench.channel(bench.urls[place])
    replies = await asyncio.gather(
        *(channel.unary(REQUEST, request(str(at), it=LARGE), timeout=60) for at in range(6))
    )
    assert [reply.value.id for reply in replies] == [str(at) for at in range(6)]
    assert all(reply.value.labels["it"] == LARGE for reply in replies)


async def test_too_large_is_resource_exhausted(bench: Bench) -> None:
    with pytest.raises(NsmError) as caught:
        await bench.channel().unary(REQUEST, request(it=LARGE + LARGE), timeout=20)
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


async def test_a_reader_that_stops_holds_the_sender_back(bench: Bench) -> None:
    """What the peer does not take stays with grpcio: our buffers do not grow with it."""

    async def large(message: NetworkServiceRequest, call: Call) -> Connection:
        return replace(message.connection, labels={"it": LARGE})

    bench.on_request = large
    client = await bench.peer()
    with client.transceiver._lock:  # the peer reads what its socket holds and no more
        calls = [asyncio.create_task(ask(client, request(str(at)), timeout=60)) for at in range(4)]
    largest = 0
    while not all(call.done() for call in calls):
        await asyncio.sleep(0.005)
        pumps = [pump for _, pump in bench.server._connections.values()]
        largest = max([largest, *(len(pump._to_wire) for pump in pumps)])
    assert largest <= 2 * READ_SIZE
    assert [(await call).labels["it"] == LARGE for call in calls] == [True] * 4


async def test_a_server_that_restarts_is_found_again(bench: Bench) -> None:
    url = f"unix://{bench.directory}/again.sock"
    channel = bench.channel(url)
    for _ in range(3):
        server = Server(bench.identity)
        server.unary(REQUEST, _same)
        await server.start([url])
        assert (await channel.unary(REQUEST, request(), timeout=5)).value.id == "one"
        await server.stop(0)
    with pytest.raises(NsmError) as caught:
        await channel.unary(REQUEST, request(), timeout=5)
    assert caught.value.code is Code.UNAVAILABLE


async def _same(message: NetworkServiceRequest, call: Call) -> Connection:
    return message.connection


async def test_a_peer_that_dies_fails_the_call_at_once_with_the_reason(bench: Bench) -> None:
    def die(_: bytes, transceiver: Transceiver, context: Any) -> bytes:
        transceiver.abort()
        return b""

    go = await bench.peer_server({REQUEST.path: die})
    with pytest.raises(NsmError, match=r"was closed|reset|pipe") as caught:
        await bench.channel(go.url).unary(REQUEST, request(), timeout=30)
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_client_that_dies_cancels_its_handlers_and_leaves_nothing(bench: Bench) -> None:
    ended, started = asyncio.Event(), asyncio.Event()

    async def wait(message: NetworkServiceRequest, call: Call) -> Connection:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return message.connection

    bench.on_request = wait
    client = await bench.peer()
    running = asyncio.create_task(ask(client, request(), timeout=30))
    await started.wait()
    client.transceiver.abort()
    await asyncio.wait_for(ended.wait(), 5)
    with pytest.raises(grpc.RpcError):
        await running


async def test_stop_ends_streams_that_never_end(bench: Bench) -> None:
    server = Server(bench.identity)

    async def forever(selector: MonitorScopeSelector, call: Call) -> AsyncIterator[ConnectionEvent]:
        yield ConnectionEvent(EventType.INITIAL_STATE_TRANSFER, {})
        await asyncio.Event().wait()

    server.stream(methods.MONITOR_CONNECTIONS, forever)
    (url,) = await server.start([f"unix://{bench.directory}/m.sock"])
    stream = bench.channel(url).stream(methods.MONITOR_CONNECTIONS, MonitorScopeSelector())
    await anext(stream)
    await server.stop(0.01)
    with pytest.raises(NsmError):
        await anext(stream)


async def test_connections_that_come_and_go_leave_nothing(bench: Bench) -> None:
    own = bench.authority.identity("/client/c")
    first = bench.channel(identity=own)
    # Only a call shows that the server, and grpcio behind it, has accepted.
    await first.unary(REQUEST, request(), timeout=5)
    before = open_fds()
    for at in range(20):
        channel = bench.channel(bench.urls[at % 2], identity=own)
        await channel.unary(REQUEST, request(), timeout=5)
        await channel.close()
    await assert_no_leak(before)


async def test_a_cancelled_dial_leaves_nothing(bench: Bench) -> None:
    own = bench.authority.identity("/client/c")
    before = open_fds()
    for turns in range(12):
        channel = bench.channel(identity=own)
        asking = asyncio.create_task(channel.peer())
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await channel.close()
    await assert_no_leak(before)
