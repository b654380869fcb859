"""What one call costs, client and server in one process: gRPC alone, and ours with TLS, codec and token."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from nsm.identity.tokens import PathTokens
from nsm.model.connection import Connection, NetworkServiceRequest
from nsm.session.tokens import token_metadata
from nsm.transport.call import Call
from nsm.transport.channel import Channel
from nsm.transport.server import Server
from nsm.wire.methods import NETWORK_SERVICE_REQUEST as REQUEST
from perf.micro import samples
from tests.fakes.identity import FakeAuthority

Once = Callable[[], Awaitable[object]]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_call_of_grpc_alone(
    benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    async def begin(stack: AsyncExitStack) -> Once:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Echo(),))
        server.add_insecure_port(f"unix:{tmp_path}/s")
        await server.start()
        stack.push_async_callback(server.stop, 0)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{tmp_path}/s"))
        call = channel.unary_unary(REQUEST.path)
        data = REQUEST.encode_request(NetworkServiceRequest(samples.connection()))
        metadata = token_metadata(
            PathTokens(samples.identities()[0], max_lifetime=samples.LIFETIME).token("spiffe://a/b")
        )
        return lambda: call(data, timeout=15, metadata=metadata)

    _measure(benchmark, loop, begin)


def test_a_call_of_ours(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    async def begin(stack: AsyncExitStack) -> Once:
        authority = FakeAuthority()
        server = Server(authority.identity("/server"))
        server.unary(REQUEST, _echo)
        (url,) = await server.start([f"unix://{tmp_path}/s"])
        stack.push_async_callback(server.stop, 0)
        own = authority.identity("/client")
        channel = Channel(url, own, PathTokens(own, max_lifetime=samples.LIFETIME))
        stack.push_async_callback(channel.close)
        request = NetworkServiceRequest(samples.connection())
        return lambda: channel.unary(REQUEST, request, timeout=15)

    _measure(benchmark, loop, begin)


class _Echo(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        del handler_call_details

        async def behaviour(data: bytes, _context: Any) -> bytes:
            return data

        return grpc.unary_unary_rpc_method_handler(behaviour)


async def _echo(request: NetworkServiceRequest, _call: Call) -> Connection:
    return request.connection


def _measure(
    benchmark: BenchmarkFixture,
    loop: asyncio.AbstractEventLoop,
    begin: Callable[[AsyncExitStack], Awaitable[Once]],
) -> None:
    """One call after the other on one connection."""
    stack = AsyncExitStack()
    once = loop.run_until_complete(begin(stack))

    async def call() -> object:
        return await once()

    try:
        assert benchmark(lambda: loop.run_until_complete(call())) is not None
    finally:
        loop.run_until_complete(stack.aclose())
