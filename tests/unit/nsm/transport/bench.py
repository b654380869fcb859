"""One server with a replaceable handler, and everything that tests make of it; counts descriptors at the end."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nsm.identity.tokens import PathTokens
from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
)
from nsm.transport.call import Call
from nsm.transport.channel import Channel
from nsm.transport.server import Server
from nsm.wire import methods
from tests.fakes.fd_peer import Handler, Papers, PeerClient, PeerServer
from tests.fakes.identity import FakeAuthority, FakeIdentity

REQUEST = methods.NETWORK_SERVICE_REQUEST
OnRequest = Callable[[NetworkServiceRequest, Call], Awaitable[Connection]]


def request(connection_id: str = "one", **labels: str) -> NetworkServiceRequest:
    return NetworkServiceRequest(Connection(id=connection_id, labels=labels))


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def papers(identity: FakeIdentity) -> Papers:
    material = identity.current
    anchors = tuple(one for bundle in material.bundles.values() for one in bundle)
    return Papers(material.svid.chain, material.svid.key, anchors)


async def echo(message: NetworkServiceRequest, call: Call) -> Connection:
    """The connection, labelled with what the transport says of the caller."""
    return replace(message.connection, labels={**dict(call.metadata), "peer": call.peer.spiffe_id})


async def monitor(selector: MonitorScopeSelector, call: Call) -> AsyncIterator[ConnectionEvent]:
    for service in selector.network_services:
        if service == "for ever":
            await asyncio.Event().wait()
        if service == "break":
            raise RuntimeError("in the middle of a stream")
        yield ConnectionEvent(EventType.UPDATE, {service: Connection(id=service)})


@dataclass
class Bench:
    authority: FakeAuthority
    directory: Path
    identity: FakeIdentity
    server: Server
    on_request: OnRequest = echo
    urls: tuple[str, ...] = ()
    closers: list[Callable[[], Awaitable[Any]]] = field(default_factory=list)

    def channel(
        self, url: str = "", *, identity: FakeIdentity | None = None, dial_timeout: float = 5.0
    ) -> Channel:
        own = identity or self.authority.identity("/client/c")
        channel = Channel(
            url or self.urls[0], own, PathTokens(own, max_lifetime=600), dial_timeout=dial_timeout
        )
        self.closers.append(channel.close)
        return channel

    async def peer(self, place: int = 0, *, own: Papers | None = None, **options: Any) -> PeerClient:
        """A Go-like client, on the unix socket (0) or TCP (1)."""
        mine = own or papers(self.authority.identity("/client/go"))
        client = await asyncio.to_thread(PeerClient, self.urls[place], mine, **options)
        self.closers.append(lambda: asyncio.to_thread(client.close))
        return client

    async def peer_server(
        self, handlers: dict[str, Handler], *, own: Papers | None = None, **options: Any
    ) -> PeerServer:
        """A Go-like server on a unix socket."""
        mine = own or papers(self.authority.identity("/server/go"))
        made = PeerServer(self.directory / "go.sock", mine, handlers, **options)
        self.closers.append(lambda: asyncio.to_thread(made.close))
        return made

    async def close(self) -> None:
        self.on_request = echo  # what a test's handler caught would keep grpcio's objects
        while self.closers:
            await self.closers.pop()()
        await self.server.stop(0)


async def ask(client: PeerClient, message: NetworkServiceRequest, **options: Any) -> Connection:
    answer = await asyncio.to_thread(client.call, REQUEST.path, REQUEST.encode_request(message), **options)
    return REQUEST.decode_response(answer)


async def make_bench(directory: Path, *, federated: Sequence[FakeAuthority] = ()) -> Bench:
    authority = FakeAuthority()
    identity = authority.identity("/server/s", federated=federated)
    server = Server(identity)
    bench = Bench(authority, directory, identity, server)

    async def on_request(message: NetworkServiceRequest, call: Call) -> Connection:
        return await bench.on_request(message, call)

    server.unary(REQUEST, on_request)
    server.stream(methods.MONITOR_CONNECTIONS, monitor)
    bench.urls = await server.start([f"unix://{directory}/s.sock", "tcp://127.0.0.1:0"])
    return bench


async def assert_no_leak(before: int) -> None:
    """Of grpcio too, which its descriptors in threads of its own, a moment later."""
    for at in range(300):
        if at % 20 == 0:
            gc.collect()
        if open_fds() <= before:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{open_fds()} descriptors, {before} before: {_names()}")


def _names() -> list[str]:
    return sorted(str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink())
