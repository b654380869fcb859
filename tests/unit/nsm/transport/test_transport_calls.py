"""Calls through two relays: identities, metadata, statuses, streams, deadlines, cancellation."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import structlog.testing
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
)
from nsm.model.endpoint import NetworkService
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.identity import Token
from nsm.transport import channel, link, pump
from nsm.transport.call import Call
from nsm.transport.channel import Channels
from nsm.transport.server import Server
from nsm.wire import methods
from tests.unit.nsm.transport.bench import REQUEST, Bench, ask, request


@pytest.mark.parametrize("place", [0, 1], ids=["unix", "tcp"])
async def test_both_ends_know_each_other_and_the_token_travels(bench: Bench, place: int) -> None:
    reply = await bench.channel(bench.urls[place]).unary(REQUEST, request(), timeout=5)
    assert reply.peer.spiffe_id == "spiffe://example.org/server/s"
    assert reply.peer.leaf == bench.identity.leaf
    assert reply.peer.not_after == bench.identity.current.svid.not_after
    assert reply.value.labels["peer"] == "spiffe://example.org/client/c"
    assert {"nsm-client-token", "nsm-client-token-expires"} <= reply.value.labels.keys()
    assert reply.peer.passes_fds == (place == 0)


async def test_a_refusal_keeps_its_code_and_names_the_field(bench: Bench) -> None:
    async def refuse(message: NetworkServiceRequest, call: Call) -> Connection:
        raise invalid("connection.id", "another", message.connection.id)

    bench.on_request = refuse
    with pytest.raises(NsmError, match=r"connection\.id: expected another, got 'one'") as caught:
        await bench.channel().unary(REQUEST, request(), timeout=5)
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_a_fault_of_ours_is_internal_shows_nothing_and_is_logged_once(bench: Bench) -> None:
    async def fail(message: NetworkServiceRequest, call: Call) -> Connection:
        raise RuntimeError("a secret detail")

    bench.on_request = fail
    with structlog.testing.capture_logs() as logs, pytest.raises(NsmError) as caught:
        await bench.channel().unary(REQUEST, request(), timeout=5)
    assert caught.value.code is Code.INTERNAL
    assert "secret" not in str(caught.value)
    assert [entry["event"] for entry in logs] == ["transport.handler"]


@pytest.mark.parametrize(
    "data", [b"\x0a\xff", b"\x0a\x03\x0a\x01\xff", b"\xff" * 64], ids=["short", "utf8", "tag"]
)
async def test_malformed_bytes_are_invalid_argument(bench: Bench, data: bytes) -> None:
    client = await bench.peer()
    with pytest.raises(grpc.RpcError) as caught:
        await asyncio.to_thread(client.call, REQUEST.path, data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        await asyncio.to_thread(client.stream, methods.MONITOR_CONNECTIONS.path, b"\x0a\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await ask(client, request())).id == "one"


async def test_a_malformed_answer_is_the_peers_fault(bench: Bench) -> None:
    go = await bench.peer_server({REQUEST.path: lambda _, __, ___: b"\x0a\xff"})
    with pytest.raises(NsmError, match=r"spiffe://example\.org/server/go gave a malformed answer") as caught:
        await bench.channel(go.url).unary(REQUEST, request(), timeout=5)
    assert caught.value.code is Code.INTERNAL


async def test_an_unknown_method_is_unimplemented(bench: Bench) -> None:
    with pytest.raises(NsmError) as caught:
        await bench.channel().unary(methods.NS_REGISTER, NetworkService(name="x"), timeout=5)
    assert caught.value.code is Code.UNIMPLEMENTED


async def test_a_stream_ends_when_the_peer_ends_it(bench: Bench) -> None:
    selector = MonitorScopeSelector(network_services=("a", "b"))
    events = [event async for event in bench.channel().stream(methods.MONITOR_CONNECTIONS, selector)]
    assert [list(event.connections) for event in events] == [["a"], ["b"]]


async def test_a_stream_that_breaks_gives_its_status_after_its_events(bench: Bench) -> None:
    selector = MonitorScopeSelector(network_services=("a", "break"))
    stream = bench.channel().stream(methods.MONITOR_CONNECTIONS, selector)
    assert list((await anext(stream)).connections) == ["a"]
    with pytest.raises(NsmError) as caught:
        await anext(stream)
    assert caught.value.code is Code.INTERNAL


async def test_leaving_a_stream_ends_its_handler(bench: Bench) -> None:
    ended = asyncio.Event()

    async def forever(selector: MonitorScopeSelector, call: Call) -> AsyncIterator[ConnectionEvent]:
        try:
            yield ConnectionEvent(EventType.INITIAL_STATE_TRANSFER, {})
            await asyncio.Event().wait()
        finally:
            ended.set()

    server = Server(bench.identity)
    server.stream(methods.MONITOR_CONNECTIONS, forever)
    (url,) = await server.start([f"unix://{bench.directory}/m.sock"])
    stream = bench.channel(url).stream(methods.MONITOR_CONNECTIONS, MonitorScopeSelector())
    assert (await anext(stream)).connections == {}
    await stream.aclose()
    await asyncio.wait_for(ended.wait(), 5)
    await server.stop(0)


async def test_a_channel_ends_at_once_although_a_call_of_it_is_still_held(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grpcio keeps its socket as long as there is somebody who holds one, as a monitor does when its daemon ends."""
    monkeypatch.setattr(link, "LINGER", 600.0)
    monkeypatch.setattr(pump, "LINGER", 600.0)
    made = bench.channel()
    selector = MonitorScopeSelector(network_services=("a", "for ever"))
    stream = made.stream(methods.MONITOR_CONNECTIONS, selector)
    assert list((await anext(stream)).connections) == ["a"]
    waiting = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(30):
        await made.close()
        with pytest.raises(NsmError):
            await waiting


async def test_the_deadline_reaches_the_handler(bench: Bench) -> None:
    seen: list[float | None] = []

    async def wait(message: NetworkServiceRequest, call: Call) -> Connection:
        seen.append(call.remaining())
        await asyncio.Event().wait()
        return message.connection

    bench.on_request = wait
    with pytest.raises(NsmError) as caught:
        await bench.channel().unary(REQUEST, request(), timeout=0.4)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert seen[0] is not None
    assert 0 < seen[0] <= 0.4


async def test_a_call_takes_a_quarter_of_what_its_token_lives(bench: Bench) -> None:
    seen: list[float | None] = []

    async def note(message: NetworkServiceRequest, call: Call) -> Connection:
        seen.append(call.remaining())
        return message.connection

    bench.on_request = note
    own = bench.authority.identity("/client/c", ttl=20)
    await bench.channel(identity=own).unary(REQUEST, request(), timeout=15)
    assert seen[0] is not None
    assert 0 < seen[0] <= 5


@pytest.mark.parametrize(("life", "least", "most"), [(40.0, 9.0, 10.0), (-3600.0, 15.0, 15.0)])
def test_a_token_that_is_over_shortens_no_call(life: float, least: float, most: float) -> None:
    token = Token("a", int((time.time() + life) * 1e9))
    assert least <= channel._patience(15.0, token) <= most


async def test_a_cancelled_call_cancels_its_handler(bench: Bench) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait(message: NetworkServiceRequest, call: Call) -> Connection:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return message.connection

    bench.on_request = wait
    running = asyncio.create_task(bench.channel().unary(REQUEST, request(), timeout=30))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.wait_for(ended.wait(), 5)


async def test_initial_metadata_comes_back(bench: Bench) -> None:
    async def answer(message: NetworkServiceRequest, call: Call) -> Connection:
        call.send_metadata([("path", "here")])
        return message.connection

    bench.on_request = answer
    reply = await bench.channel().unary(REQUEST, request(), timeout=5, metadata=[("path", "there")])
    assert ("path", "here") in reply.metadata


async def test_health_follows_the_server_and_knows_its_services(bench: Bench) -> None:
    client = await bench.peer()

    async def check(service: str) -> int:
        message = health_pb2.HealthCheckRequest(service=service).SerializeToString()
        answer = await asyncio.to_thread(client.call, "/grpc.health.v1.Health/Check", message)
        return int(health_pb2.HealthCheckResponse.FromString(answer).status)

    assert await check("") == health_pb2.HealthCheckResponse.SERVING
    assert await check("connection.MonitorConnection") == health_pb2.HealthCheckResponse.SERVING
    bench.server.set_serving(False)
    assert await check("networkservice.NetworkService") == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.RpcError) as caught:
        await check("none.Such")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_shows_our_services_and_files(bench: Bench) -> None:
    client = await bench.peer()
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="networkservice.NetworkService"),
    ]

    def info() -> list[bytes]:
        call = client.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        return list(call(iter([one.SerializeToString() for one in questions]), timeout=10))

    services, file = [
        reflection_pb2.ServerReflectionResponse.FromString(one) for one in await asyncio.to_thread(info)
    ]
    assert {"networkservice.NetworkService", "grpc.health.v1.Health"} <= {
        one.name for one in services.list_services_response.service
    }
    assert file.file_descriptor_response.file_descriptor_proto


async def test_a_pool_keeps_channels_until_dropped(bench: Bench) -> None:
    pool = Channels(bench.authority.identity("/client/p"))
    channel = pool.get(bench.urls[0])
    await channel.unary(REQUEST, request(), timeout=5)
    assert pool.get(bench.urls[0]) is channel
    await pool.drop(bench.urls[0])
    assert pool.get(bench.urls[0]) is not channel
    with pytest.raises(NsmError, match="closed"):
        await channel.unary(REQUEST, request(), timeout=5)
    await pool.close()


async def test_calls_on_one_channel_share_one_connection(bench: Bench) -> None:
    addresses = set()

    async def note(message: NetworkServiceRequest, call: Call) -> Connection:
        addresses.add(id(call._wire))
        await asyncio.sleep(0)
        return message.connection

    bench.on_request = note
    channel = bench.channel()
    await asyncio.gather(*(channel.unary(REQUEST, request(str(at)), timeout=10) for at in range(100)))
    assert len(addresses) == 1


async def test_two_hundred_connections_at_once(bench: Bench) -> None:
    own = bench.authority.identity("/client/c")
    channels = [bench.channel(bench.urls[at % 2], identity=own, dial_timeout=30) for at in range(200)]
    replies = await asyncio.gather(*(channel.unary(REQUEST, request(), timeout=30) for channel in channels))
    assert len(replies) == 200


async def test_no_grpc_noise(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await bench.channel().unary(REQUEST, request(), timeout=5)
    assert caplog.records == []
