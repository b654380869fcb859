"""Calls other processes: a grpcio channel on a private socket, behind it our own TLS connection to one target."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Identity, Material, TokenSource
from nsm.session.tokens import token_metadata
from nsm.transport.addresses import dial, split
from nsm.transport.peer import Peer
from nsm.transport.status import of_rpc_error
from nsm.transport.tls import Contexts, verified
from nsm.transport.tunnel import Tunnel
from nsm.wire.method import Method

Req = TypeVar("Req")
Res = TypeVar("Res")

_OPTIONS: Final = (
    ("grpc.default_authority", "localhost"),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Reply(Generic[Res]):
    """An answer, the initial metadata that came with it, and who gave it."""

    value: Res
    metadata: tuple[tuple[str, str], ...]
    peer: Peer


class _Link:
    """One live connection: made with ``material``, so only tokens signed by its key may use it (trap 5)."""

    def __init__(self, tunnel: Tunnel, peer: Peer, material: Material, channel: Any, private: str) -> None:
        self.tunnel = tunnel
        self.peer = peer
        self.material = material
        self.channel = channel
        self._private = private
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        tunnel.on_end = self._idle.set

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Keeps the connection while a call runs on it."""
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def end(self, *, wait: bool) -> None:
        """Close it, after its running calls if ``wait``."""
        if wait and not self.tunnel.closed:
            await self._idle.wait()
        self.tunnel.close(self.tunnel.reason or "closed")
        await self.channel.close()
        shutil.rmtree(self._private, ignore_errors=True)


class Channel:
    """One target; dialled when first needed, again after it broke and after our SVID changed."""

    def __init__(
        self, url: str, identity: Identity, tokens: TokenSource | None = None, *, dial_timeout: float = 5.0
    ) -> None:
        split(url)
        self.url = url
        self._identity = identity
        self._tokens = tokens
        self._dial_timeout = dial_timeout
        self._contexts = Contexts(identity)
        self._link: _Link | None = None
        self._dialling: asyncio.Task[_Link] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._closed = False

    # connection

    async def peer(self) -> Peer:
        """Who answers there; dials if needed. NsmError UNAVAILABLE with the reason."""
        return (await self._ready()).peer

    async def _ready(self) -> _Link:
        link = self._link
        if link is not None and not link.tunnel.closed and link.material is self._identity.current:
            return link
        if self._closed:
            raise NsmError(Code.UNAVAILABLE, f"the channel to {self.url} is closed")
        if self._dialling is None or self._dialling.done():
            self._dialling = asyncio.create_task(self._dial(), name=f"dial {self.url}")
            self._dialling.add_done_callback(_seen)
        return await asyncio.shield(self._dialling)

    async def _dial(self) -> _Link:
        """A new connection; the old one goes once its calls are done."""
        old, self._link = self._link, None
        if old is not None:
            self._retire(old)
        try:
            async with asyncio.timeout(self._dial_timeout):
                link = await self._connect()
        except TimeoutError:
            message = f"{self.url} did not answer within {self._dial_timeout:g} s"
            raise NsmError(Code.UNAVAILABLE, message) from None
        except OSError as error:
            message = f"cannot reach {self.url}: {error.strerror or error}"
            raise NsmError(Code.UNAVAILABLE, message) from error
        self._link = link
        return link

    async def _connect(self) -> _Link:
        material = self._identity.current
        context = self._contexts.pair()[1]
        outer = await dial(self.url)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tunnel = Tunnel(outer, context.wrap_bio(incoming, outgoing, server_side=False), incoming, outgoing)
        try:
            await tunnel.handshake(self._dial_timeout)
            peer = verified(tunnel.tls, self._identity, self.url, passes_fds=tunnel.passes_fds)
            channel, private = await _grpc_over(tunnel)
        except BaseException:
            tunnel.close("not connected")
            raise
        return _Link(tunnel, peer, material, channel, private)

    def _retire(self, link: _Link) -> None:
        task = asyncio.create_task(link.end(wait=True), name=f"retire {self.url}")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def close(self) -> None:
        """End the connection; running calls fail with UNAVAILABLE."""
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait({self._dialling})
        link, self._link = self._link, None
        if link is not None:
            await link.end(wait=False)
        for task in list(self._retired):
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    # calls

    async def unary(
        self,
        method: Method[Req, Res],
        request: Req,
        *,
        timeout: float,
        metadata: Sequence[tuple[str, str]] = (),
        fds: Sequence[int] = (),
    ) -> Reply[Res]:
        """One request, one answer; ``fds`` (not taken over) leave before the request or with it.

        Raises:
            NsmError: what the peer answered, UNAVAILABLE with our own reason when the connection broke,
                FAILED_PRECONDITION for descriptors over TCP.
        """
        data = method.encode_request(request)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        link = await self._within(timeout, method)
        if fds and not link.tunnel.passes_fds:
            message = f"no descriptors cross {self.url}: use the unix socket"
            raise NsmError(Code.FAILED_PRECONDITION, message, field="inodeURL")
        with link.call():
            for fd in fds:
                link.tunnel.send_fd(fd)
            call = link.channel.unary_unary(method.path)(
                data, timeout=max(0.001, end - loop.time()), metadata=self._metadata(link, metadata)
            )
            try:
                answer = await call
                return Reply(method.decode_response(answer), _pairs(await call.initial_metadata()), link.peer)
            except grpc.aio.AioRpcError as error:
                raise of_rpc_error(error, self._why(link)) from None
            finally:
                call.cancel()

    async def stream(
        self,
        method: Method[Req, Res],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> AsyncGenerator[Res, None]:
        """One request, many answers, until the peer ends the stream; NsmError as ``unary``."""
        data = method.encode_request(request)
        link = await self._ready()
        with link.call():
            call = link.channel.unary_stream(method.path)(
                data, timeout=timeout, metadata=self._metadata(link, metadata)
            )
            try:
                async for answer in call:
                    yield method.decode_response(answer)
            except grpc.aio.AioRpcError as error:
                raise of_rpc_error(error, self._why(link)) from None
            finally:
                call.cancel()

    async def receive_fd(self, url: str, timeout: float) -> int:
        """A descriptor the peer sent back on this connection; the caller owns it."""
        link = await self._ready()
        if not link.tunnel.passes_fds:
            message = f"no descriptors cross {self.url}: use the unix socket"
            raise NsmError(Code.FAILED_PRECONDITION, message, field="inodeURL")
        return await link.tunnel.descriptors.take(url, timeout)

    async def _within(self, timeout: float, method: Method[Any, Any]) -> _Link:
        try:
            async with asyncio.timeout(timeout):
                return await self._ready()
        except TimeoutError:
            message = f"{self.url} was not reached within {timeout:g} s for {method.name}"
            raise NsmError(Code.DEADLINE_EXCEEDED, message) from None

    def _metadata(self, link: _Link, metadata: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        if self._tokens is None:
            return tuple(metadata)
        token = self._tokens.token(link.peer.spiffe_id, link.peer.not_after)
        return (*token_metadata(token), *metadata)

    def _why(self, link: _Link) -> str:
        return f"the connection to {self.url} ended: {link.tunnel.reason}" if link.tunnel.closed else ""


async def _grpc_over(tunnel: Tunnel) -> tuple[Any, str]:
    """A grpcio channel whose only connection is this tunnel; a further attempt to connect finds nobody."""
    private = tempfile.mkdtemp(prefix="nsm-")
    path = str(Path(private, "out.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        channel = grpc.aio.insecure_channel(f"unix:{path}", options=_OPTIONS)
        try:
            channel.get_state(try_to_connect=True)
            inner, _ = await asyncio.get_running_loop().sock_accept(listener)
        except BaseException:
            await channel.close()
            shutil.rmtree(private, ignore_errors=True)
            raise
    inner.setblocking(False)
    tunnel.start(inner)
    return channel, private


def _seen(task: "asyncio.Task[Any]") -> None:
    """Whoever dialled may have gone; the failure was theirs to see."""
    if not task.cancelled():
        task.exception()


def _pairs(metadata: Any) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in (metadata or ()) if isinstance(value, str))


class Channels:
    """One channel for each URL."""

    def __init__(
        self, identity: Identity, tokens: TokenSource | None = None, *, dial_timeout: float = 5.0
    ) -> None:
        self._identity = identity
        self._tokens = tokens
        self._dial_timeout = dial_timeout
        self._channels: dict[str, Channel] = {}

    def get(self, url: str) -> Channel:
        """The channel to that URL; not dialled yet if it is new."""
        channel = self._channels.get(url)
        if channel is None:
            channel = Channel(url, self._identity, self._tokens, dial_timeout=self._dial_timeout)
            self._channels[url] = channel
        return channel

    async def drop(self, url: str) -> None:
        """Close and forget one channel."""
        channel = self._channels.pop(url, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close all."""
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))
