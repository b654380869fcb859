"""Hops in one process without sockets: calls, descriptors, streams, deadlines and breaks as the transport has them.

``Mesh`` knows every ``HopServer`` by URL; ``Mesh.channels(name)`` is what a hop of that name calls out with.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Svid, Token
from nsm.model.path import Path, PathSegment
from nsm.policy.rules import Policies
from nsm.service.fds import inode_url
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.session.tokens import token_metadata
from nsm.transport.call import FD_TIMEOUT, Call
from nsm.transport.channel import Channel, Channels, Reply
from nsm.transport.peer import Peer
from nsm.wire.methods import NETWORK_SERVICE_CLOSE, NETWORK_SERVICE_REQUEST

LIFETIME = 600.0


def peer_of(name: str, *, passes_fds: bool = True) -> Peer:
    """The peer a hop of that name is to others."""
    return Peer(f"spiffe://example.org/{name}", name.encode(), time.time() + 3600, "unix:", passes_fds)


class FakeTokens:
    """Readable tokens, each a new one."""

    def __init__(self, name: str, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.lifetime = LIFETIME
        self._clock = clock
        self._made = 0

    @property
    def spiffe_id(self) -> str:
        return f"spiffe://example.org/{self.name}"

    def token(
        self, audience: str | None, peer_not_after: float | None = None, svid: Svid | None = None
    ) -> Token:
        del peer_not_after, svid
        self._made += 1
        text = f"{self.name}-{self._made} for {(audience or '').rpartition('/')[2]}"
        return Token(text, round((self._clock() + self.lifetime) * 1e9))


class FakePolicies:
    """Allows everything, or raises ``refusal``."""

    def __init__(self) -> None:
        self.refusal: NsmError | None = None
        self.seen: list[Path] = []

    def server(self, path: Path, peer_leaf: bytes) -> None:
        assert peer_leaf
        self.seen.append(path)
        if self.refusal is not None:
            raise self.refusal

    def caller(self, path: Path, spiffe_id: str) -> None:
        assert path.segments
        assert spiffe_id

    def owner(self, known: Path, asked: Path) -> None:
        assert known.segments
        assert asked.segments


@dataclass
class FakeCall:
    """One inbound call; ``arriving`` are descriptors beside it, ``sent`` those of the answer, by inode URL."""

    peer: Peer
    metadata: tuple[tuple[str, str], ...] = ()
    timeout: float | None = 15.0
    arriving: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)

    def remaining(self) -> float | None:
        return self.timeout

    async def receive_fd(self, url: str, timeout: float | None = None) -> int:  # noqa: ASYNC109 - as the transport has it
        if url in self.arriving:
            return os.dup(self.arriving[url])
        await asyncio.sleep(FD_TIMEOUT if timeout is None else timeout)
        raise NsmError(Code.DEADLINE_EXCEEDED, f"{url} did not arrive within {timeout} s")

    def release_fd(self, url: str) -> None:
        self.released.append(url)

    def send_fd(self, fd: int) -> str:
        url = inode_url(fd)
        if url not in self.sent:
            self.sent[url] = os.dup(fd)
        return url

    def close(self) -> None:
        for fd in (*self.arriving.values(), *self.sent.values()):
            os.close(fd)
        self.arriving, self.sent = {}, {}

    @property
    def call(self) -> Call:
        return cast("Call", self)


class FakeRole:
    """Counts, records, and does what ``act`` and ``on_close`` say; by default agrees to what was asked."""

    def __init__(self, act: Callable[[Incoming], Awaitable[Connection]] | None = None) -> None:
        self.requests: list[Incoming] = []
        self.closings: list[Closing] = []
        self.act = act
        self.close_error: NsmError | None = None

    async def request(self, incoming: Incoming) -> Connection:
        self.requests.append(incoming)
        return incoming.connection if self.act is None else await self.act(incoming)

    async def close(self, closing: Closing) -> None:
        self.closings.append(closing)
        if self.close_error is not None:
            raise self.close_error


def hop(name: str, role: Any, *, is_endpoint: bool = True, **options: Any) -> HopServer:
    """A ``HopServer`` with fake tokens and, unless given, policies that allow everything."""
    policies = cast("Policies", options.pop("policies", None) or FakePolicies())
    tokens = options.pop("tokens", None) or FakeTokens(name)
    return HopServer(name, role, tokens=tokens, policies=policies, is_endpoint=is_endpoint, **options)


def first(connection_id: str = "c-0", service: str = "ns") -> Connection:
    """What the outermost client ``client`` sends first."""
    path = Path(0, (PathSegment(name="client", id=connection_id),))
    return Connection(id=connection_id, network_service=service, path=path)


def call_of(name: str = "client", *, timeout: float | None = 15.0, lifetime: float = LIFETIME) -> FakeCall:
    """A call with a token of ``name`` that lives ``lifetime`` seconds."""
    token = Token(f"token of {name}", round((time.time() + lifetime) * 1e9))
    return FakeCall(peer_of(name), token_metadata(token), timeout)


class Mesh:
    """Hops by URL. ``down`` are those nobody answers at; ``streams`` counts the monitor streams opened."""

    def __init__(self) -> None:
        self.hops: dict[str, tuple[str, HopServer]] = {}
        self.down: set[str] = set()
        self.tcp: set[str] = set()
        self.streams: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self._made: list[_Channels] = []
        self._breaks: dict[str, list[asyncio.Future[None]]] = {}

    def add(self, url: str, name: str, server: HopServer) -> None:
        self.hops[url] = (name, server)

    def channels(self, name: str) -> Channels:
        made = _Channels(self, name)
        self._made.append(made)
        return cast("Channels", made)

    def close(self) -> None:
        """Close the descriptors that came back and nobody asked for."""
        for made in self._made:
            made.close()

    def break_streams(self, url: str, code: Code | None = None) -> None:
        """Every stream to ``url`` ends, normally or with ``code``."""
        for broken in self._breaks.pop(url, []):
            if broken.done():
                continue
            if code is None:
                broken.set_result(None)
            else:
                broken.set_exception(NsmError(code, "broken"))

    def target(self, url: str) -> tuple[str, HopServer]:
        if url in self.down or url not in self.hops:
            raise NsmError(Code.UNAVAILABLE, f"{url}: connection refused")
        return self.hops[url]

    def breaking(self, url: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._breaks.setdefault(url, []).append(future)
        return future


class _Channels:
    def __init__(self, mesh: Mesh, name: str) -> None:
        self._mesh = mesh
        self._tokens = FakeTokens(name)
        self._channels: dict[str, _Channel] = {}

    def get(self, url: str) -> Channel:
        if url not in self._channels:
            self._channels[url] = _Channel(self._mesh, url, self._tokens)
        return cast("Channel", self._channels[url])

    def close(self) -> None:
        for channel in self._channels.values():
            for fd in channel.back.values():
                os.close(fd)
            channel.back.clear()


class _Channel:
    def __init__(self, mesh: Mesh, url: str, tokens: FakeTokens) -> None:
        self._mesh = mesh
        self._url = url
        self._tokens = tokens
        self.back: dict[str, int] = {}

    async def peer(self) -> Peer:
        name, _ = self._mesh.target(self._url)
        return peer_of(name, passes_fds=self._url not in self._mesh.tcp)

    @property
    def connected(self) -> Peer | None:
        return None  # so that every call dials, and finds out who is down

    def _call(self, name: str, timeout: float | None, fds: Sequence[int]) -> FakeCall:
        metadata = token_metadata(self._tokens.token(f"spiffe://example.org/{name}"))
        caller = peer_of(self._tokens.name, passes_fds=self._url not in self._mesh.tcp)
        return FakeCall(caller, metadata, timeout, {inode_url(fd): os.dup(fd) for fd in fds})

    async def unary(
        self,
        method: Any,
        request: Any,
        *,
        timeout: float,  # noqa: ASYNC109 - as the transport has it
        metadata: Iterable[tuple[str, str]] = (),
        fds: Sequence[int] = (),
    ) -> Reply[Any]:
        del metadata
        name, server = self._mesh.target(self._url)
        call = self._call(name, timeout, fds)
        handlers = {NETWORK_SERVICE_REQUEST.path: server.request, NETWORK_SERVICE_CLOSE.path: server.close}
        try:
            async with asyncio.timeout(timeout):
                value = await cast("Any", handlers[method.path])(request, call.call)
        except TimeoutError as error:
            raise NsmError(Code.DEADLINE_EXCEEDED, "deadline exceeded") from error
        finally:
            for url, fd in call.sent.items():
                if url not in self.back:
                    self.back[url] = os.dup(fd)
            call.close()
        return Reply(value, (), await self.peer())

    async def stream(
        self,
        method: Any,
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as the transport has it
        metadata: Iterable[tuple[str, str]] = (),
    ) -> AsyncGenerator[Any, None]:
        del method, timeout, metadata
        name, server = self._mesh.target(self._url)
        self._mesh.streams[self._url] = self._mesh.streams.get(self._url, 0) + 1
        broken = self._mesh.breaking(self._url)
        events = server.monitor(request, self._call(name, None, ()).call)
        try:
            while True:
                following = asyncio.ensure_future(cast("Any", anext(events)))
                try:
                    await asyncio.wait({following, broken}, return_when=asyncio.FIRST_COMPLETED)
                    if broken.done():
                        broken.result()
                        return
                    event = following.result()
                except StopAsyncIteration:
                    return
                finally:
                    if not following.done():
                        following.cancel()
                        await asyncio.wait({following})
                yield event
        finally:
            broken.cancel()
            await cast("Any", events).aclose()

    def release_fd(self, url: str) -> None:
        fd = self.back.pop(url, None)
        if fd is not None:
            os.close(fd)

    async def receive_fd(self, url: str, timeout: float) -> int:  # noqa: ASYNC109 - as the transport has it
        fd = self.back.pop(url, None)
        if fd is None:
            raise NsmError(Code.DEADLINE_EXCEEDED, f"{url} did not arrive within {timeout} s")
        self._mesh.received[url] = self._mesh.received.get(url, 0) + 1
        return fd
