"""One outbound connection: TLS to the peer, a pump, and a gRPC channel that uses this connection only.

A gRPC channel that reconnected by itself would change the peer, its certificate and our own key under the calls;
here a lost connection is a lost link, and the next call makes a new one.
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
import grpc.aio

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Svid
from nsm.transport import recorded
from nsm.transport.handshake import handshake
from nsm.transport.peer import Peer
from nsm.transport.private import doorstep
from nsm.transport.pump import LINGER, Pump
from nsm.transport.sockets import connected
from nsm.transport.tls import Contexts, explain
from nsm.transport.wire import Wire

_OPTIONS: Final = (
    ("grpc.default_authority", "localhost"),  # as Go sends it on unix; else it is our private path
    ("grpc.use_local_subchannel_pool", 1),  # one channel, one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)
_USABLE: Final = frozenset({grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.CONNECTING})


class Link:
    """``svid`` is what our side of it was authenticated with: path tokens must be signed by the same (trap 5)."""

    def __init__(self, peer: Peer, svid: Svid, pump_of: "Halves", channel: grpc.aio.Channel) -> None:
        self.peer: Final = peer
        self.svid: Final = svid
        self._channel = channel
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._callables: dict[str, Any] = {}
        self._uses = 0
        now = time.time()
        self._stale_at = now + (peer.not_after - now) / 2
        self._is_retired = False
        self._closing: asyncio.Task[None] | None = None
        self.pump: Final = Pump(pump_of.wire, pump_of.tls, pump_of.private, self._on_closed)
        self.pump.start()

    @property
    def is_usable(self) -> bool:
        """Whether a new call may begin on it: neither side has ended it, nor announced to (GOAWAY).

        Nor once half of what was left of the peer's certificate has passed: by then it will have rotated, and the
        answers to whoever still uses the old one are good for less and less.
        """
        return self.is_open and time.time() < self._stale_at and self._channel.get_state() in _USABLE

    @property
    def is_open(self) -> bool:
        """Whether neither side has ended it, as far as is known here."""
        return not self._is_retired and not self.pump.is_ending

    def unary(self, path: str) -> Any:
        """The callable of a unary method, bytes to bytes."""
        found = self._callables.get(path)
        if found is None:
            call = self._channel.unary_unary(path)
            found = self._callables[path] = recorded.unary(self.peer.spiffe_id, self.pump.wire, path, call)
        return found

    def stream(self, path: str) -> Any:
        """The callable of a server-streaming method, bytes to bytes."""
        found = self._callables.get(path)
        if found is None:
            call = self._channel.unary_stream(path)
            found = self._callables[path] = recorded.stream(self.peer.spiffe_id, self.pump.wire, path, call)
        return found

    @contextmanager
    def used(self) -> Iterator[None]:
        """For the time of a call: a retired link closes after its last one."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """No new calls; those that run go on."""
        self._is_retired = True
        self._close_if_unused()

    async def close(self) -> None:
        """End it and its calls."""
        self._is_retired = True
        await self._channel.close()
        self.pump.finish()  # grpcio keeps its socket for as long as somebody holds a call, e.g. in a traceback
        if not self.pump.is_closed:
            await asyncio.wait({self._closed}, timeout=LINGER)
        self.pump.close()

    def _close_if_unused(self) -> None:
        if self._is_retired and not self._uses and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    def _on_closed(self, _: Pump) -> None:
        if not self._closed.done():
            self._closed.set_result(None)
        self.retire()


class Halves:
    """What a pump joins."""

    def __init__(self, wire: Wire, tls: Any, private: socket.socket) -> None:
        self.wire: Final = wire
        self.tls: Final = tls
        self.private: Final = private


async def dial(url: str, contexts: Contexts, timeout: float) -> Link:
    """Connect, authenticate both sides and make it usable by gRPC.

    Raises:
        NsmError: UNAVAILABLE with the real reason; INVALID_ARGUMENT for what is no URL.
    """
    try:
        async with asyncio.timeout(timeout), connected(url) as sock:
            return await _join(url, sock, contexts)
    except TimeoutError as error:
        raise NsmError(Code.UNAVAILABLE, f"dialling {url}: no answer within {timeout:.3g} s") from error
    except OSError as error:
        raise NsmError(Code.UNAVAILABLE, f"dialling {url}: {explain(error)}") from error
    except NsmError as error:
        if error.code is Code.INVALID_ARGUMENT:
            raise
        raise NsmError(Code.UNAVAILABLE, f"dialling {url}: {error.detail}") from error


async def _join(url: str, sock: socket.socket, contexts: Contexts) -> Link:
    tls = contexts.client()
    wire = Wire(sock)
    try:
        verified = await handshake(wire, tls)
        peer = Peer(verified.spiffe_id, verified.leaf, verified.not_after, url, wire.passes_fds, tls.svid)
        async with doorstep() as door:
            channel = grpc.aio.insecure_channel(f"unix:{door.path}", options=_OPTIONS)
            try:
                channel.get_state(try_to_connect=True)
                private = await door.accept()
            except BaseException:
                await channel.close()
                raise
        return Link(peer, tls.svid, Halves(wire, tls, private), channel)
    except BaseException:
        wire.close()
        raise
