"""An endpoint that comes back with its file of leases has the connections it had, and whoever owns one may close it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path as FilePath

import pytest

from controlplane.endpoint.serving import Endpoint
from controlplane.endpoint.settings import EndpointSettings
from nsm.identity.tokens import PathTokens, PathTokenVerifier
from nsm.model.connection import Connection, MonitorScopeSelector, State
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment
from nsm.policy.rules import Policies
from nsm.service.daemon import Node
from nsm.service.next_hop import NextHop
from nsm.transport.channel import Channels
from nsm.wire.methods import MONITOR_CONNECTIONS
from tests.fakes.identity import FakeAuthority

POOL = ((ip_network("172.31.0.0/24"),),)
OFFERED = (Mechanism(LOCAL, KERNEL),)


class Lasting(Endpoint):
    """An endpoint nobody registers: it is dialled by its socket, under the same name in each of its lives."""

    async def _register(self, url: str) -> None:
        del url


class World:
    """One socket, one file of leases, and callers with identities of their own."""

    def __init__(self, directory: FilePath, stack: AsyncExitStack) -> None:
        self.url = f"unix://{directory}/nse.sock"
        self._leases = str(directory / "leases.json")
        self._authority = FakeAuthority()
        self._stack = stack

    async def endpoint(self) -> Endpoint:
        settings = EndpointSettings(
            name="nse",
            listen_on=(self.url,),
            cidr_prefix=POOL,
            pbr_config_path="",
            lease_file=self._leases,
        )
        endpoint = Lasting(settings, self._node("endpoint/nse"))
        await endpoint.start()
        self._stack.push_async_callback(endpoint.stop)
        return endpoint

    def caller(self, name: str) -> NextHop:
        made = NextHop(name, self._node(f"forwarder/{name}").channels)
        self._stack.push_async_callback(made.stop)
        return made

    async def ask(self, caller: NextHop, connection: Connection) -> Connection:
        answer = await caller.request(self.url, connection, OFFERED, deadline=soon())
        assert answer.mechanism is not None
        return replace(answer, mechanism=answer.mechanism.without(INODE_URL))

    async def told(self) -> list[State]:
        """What who begins to watch hears first."""
        channel = self._node("operator").channels.get(self.url)
        async with aclosing(channel.stream(MONITOR_CONNECTIONS, MonitorScopeSelector())) as events:
            return [each.state for each in (await anext(events)).connections.values()]

    def _node(self, path: str) -> Node:
        identity, verifier = self._authority.identity(path), PathTokenVerifier()
        tokens = PathTokens(identity, max_lifetime=600.0)
        channels = Channels(identity, tokens)
        self._stack.push_async_callback(channels.close)
        return Node(identity, tokens, verifier, Policies(verifier), channels)


def first(name: str) -> Connection:
    own = f"{name}-0"
    return Connection(id=own, network_service="web", path=Path(0, (PathSegment(name, own),)))


def soon() -> float:
    return asyncio.get_running_loop().time() + 30


@pytest.fixture
async def world(tmp_path: FilePath) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(tmp_path, stack)


@pytest.mark.parametrize("is_refreshed", [False, True])
async def test_a_close_frees_the_addresses_also_before_the_first_refresh(
    world: World, is_refreshed: bool
) -> None:
    caller, before = world.caller("fwd"), await world.endpoint()
    answer = await world.ask(caller, first("fwd"))
    await before.stop()
    again = await world.endpoint()
    assert [one.context for one in again.connections] == [answer.context]
    assert await world.told() == [State.REFRESH_REQUESTED]
    if is_refreshed:
        assert (await world.ask(caller, answer)).context == answer.context
        assert await world.told() == [State.UP]
    await caller.close(world.url, answer, deadline=soon())
    assert again.connections == ()
    successor = await world.ask(world.caller("successor"), first("successor"))
    assert successor.ip.src_ip_addrs == answer.ip.src_ip_addrs


async def test_nobody_else_may_close_what_was_taken_over(world: World) -> None:
    before = await world.endpoint()
    answer = await world.ask(world.caller("fwd"), first("fwd"))
    await before.stop()
    again = await world.endpoint()
    with pytest.raises(NsmError, match="connection_owner") as caught:
        await world.caller("thief").close(world.url, answer, deadline=soon())
    assert caught.value.code is Code.PERMISSION_DENIED
    assert [one.context for one in again.connections] == [answer.context]
