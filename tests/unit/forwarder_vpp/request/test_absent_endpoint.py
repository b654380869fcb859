"""A client is told across hops that its endpoint has died, and of nothing else that looks like it."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from forwarder_vpp.request.absent import named_if_absent
from nsm.model.connection import Connection, NetworkServiceRequest
from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.errors import ENDPOINT_FIELD, Code, NsmError
from nsm.transport.call import Call
from nsm.transport.channel import Channel
from nsm.transport.server import Server
from nsm.wire.methods import NETWORK_SERVICE_REQUEST
from tests.fakes.identity import FakeAuthority


class Hops:
    """A forwarder that dials the endpoint at ``url``, and a manager in front of it."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._authority = FakeAuthority()

    async def error(self, url: str) -> NsmError:
        """What a client of the manager is told about an endpoint at ``url``."""
        endpoint = NetworkServiceEndpoint(name="nse", url=url)

        async def dials(request: NetworkServiceRequest, call: Call) -> Connection:
            with named_if_absent(endpoint):
                await self._channel("forwarder", url, dial_timeout=0.2).peer()
            return request.connection

        async def passes(request: NetworkServiceRequest, call: Call) -> Connection:
            return (
                await self._channel("manager", behind).unary(NETWORK_SERVICE_REQUEST, request, timeout=30)
            ).value

        behind = await self._serve("forwarder", dials)
        front = await self._serve("manager", passes)
        request = NetworkServiceRequest(Connection(id="c"), ())
        with pytest.raises(NsmError) as caught:
            await self._channel("client", front).unary(NETWORK_SERVICE_REQUEST, request, timeout=30)
        return caught.value

    async def _serve(self, name: str, handler: Callable[..., object]) -> str:
        server = Server(self._authority.identity(name))
        server.unary(NETWORK_SERVICE_REQUEST, handler)  # type: ignore[arg-type]
        (url,) = await server.start([f"unix://{self._directory}/{name}.sock"])
        self._stack.push_async_callback(server.stop)
        return url

    def _channel(self, name: str, url: str, dial_timeout: float = 20.0) -> Channel:
        channel = Channel(url, self._authority.identity(name), dial_timeout=dial_timeout)
        self._stack.push_async_callback(channel.close)
        return channel


@pytest.fixture
async def hops(tmp_path: Path) -> AsyncIterator[Hops]:
    async with AsyncExitStack() as stack:
        yield Hops(tmp_path, stack)


@pytest.mark.parametrize("is_left", [True, False], ids=["left by a killed process", "removed"])
async def test_who_dials_a_socket_nobody_listens_on_says_it_is_the_endpoint(
    hops: Hops, tmp_path: Path, is_left: bool
) -> None:
    file = tmp_path / "nse.sock"
    if is_left:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(file))
    error = await hops.error(f"unix://{file}")
    assert (error.code, error.field) == (Code.UNAVAILABLE, ENDPOINT_FIELD)
    assert "endpoint 'nse' is registered, but nobody listens on its socket" in error.message


async def test_an_endpoint_that_does_not_answer_may_be_alive(hops: Hops, tmp_path: Path) -> None:
    file = tmp_path / "nse.sock"
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(file))
        mute.listen()
        error = await hops.error(f"unix://{file}")
    assert (error.code, error.field) == (Code.UNAVAILABLE, "")


async def test_a_manager_of_another_node_that_is_away_is_not_the_endpoint(hops: Hops) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: refused
        error = await hops.error(f"tcp://127.0.0.1:{taken.getsockname()[1]}")
    assert (error.code, error.field) == (Code.UNAVAILABLE, "")
