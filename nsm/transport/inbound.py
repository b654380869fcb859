"""Accepts connections: TLS, verification, then a private connection to grpcio under a name that says whose it is."""

import asyncio
import contextlib
import itertools
import secrets
import socket
import ssl
from collections.abc import Sequence
from typing import Final

import structlog

from nsm.model.errors import NsmError
from nsm.model.identity import Identity
from nsm.transport.addresses import listen
from nsm.transport.peer import Peer
from nsm.transport.tls import Contexts, verified
from nsm.transport.tunnel import Tunnel

HANDSHAKE_S: Final = 10.0
_LOG: Final = structlog.get_logger(__name__)


class Inbound:
    """Relays every verified connection to the unix socket ``private``."""

    def __init__(self, identity: Identity, private: str) -> None:
        self._identity = identity
        self._contexts = Contexts(identity)
        self._private = private
        self._listeners: list[socket.socket] = []
        self._live: dict[str, tuple[Tunnel, Peer]] = {}
        self._shaking: set[asyncio.Task[None]] = set()
        self._prefix = f"nsm-{secrets.token_hex(16)}"
        self._numbers = itertools.count(1)

    def lookup(self, grpc_peer: str) -> tuple[Tunnel, Peer] | None:
        """Whose RPC it is, by grpcio's ``context.peer()``; ``None`` for one that did not come through here."""
        return self._live.get(grpc_peer.partition(":")[2])

    def open(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Listen on all URLs or on none; the URLs with the ports chosen."""
        self._contexts.pair()
        bound = []
        try:
            for url in urls:
                sockets, actual = listen(url)
                self._listeners += sockets
                bound.append(actual)
        except NsmError:
            self.stop_listening()
            raise
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener)
        return tuple(bound)

    def stop_listening(self) -> None:
        """No new connections."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """End everything."""
        self.stop_listening()
        for task in self._shaking:
            task.cancel()
        await asyncio.gather(*self._shaking, return_exceptions=True)
        for tunnel, _ in list(self._live.values()):
            tunnel.close("server stopped")

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                outer, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                _LOG.warning("transport.accept_failed", error=error.strerror)
                return
            outer.setblocking(False)
            shown = "unix" if outer.family == socket.AF_UNIX else f"tcp:{address[0]}:{address[1]}"
            if outer.family != socket.AF_UNIX:
                outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._admit(outer, shown), name=f"tls {shown}")
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    async def _admit(self, outer: socket.socket, address: str) -> None:
        """Handshake, verify, connect to grpcio; whoever is refused is logged once."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._contexts.pair()[0].wrap_bio(incoming, outgoing, server_side=True)
        tunnel = Tunnel(outer, tls, incoming, outgoing)
        try:
            await tunnel.handshake(HANDSHAKE_S)
            peer = verified(tls, self._identity, address, passes_fds=tunnel.passes_fds)
            inner, name = await self._connect()
        except NsmError as error:
            tunnel.close(error.message)
            _LOG.warning("transport.refused", peer=address, reason=error.message)
            return
        except BaseException:
            tunnel.close("stopped")
            raise
        if tunnel.closed:
            inner.close()
            return
        self._live[name] = (tunnel, peer)
        tunnel.on_end = lambda: self._forget(name)
        tunnel.start(inner)

    def _forget(self, name: str) -> None:
        self._live.pop(name, None)

    async def _connect(self) -> tuple[socket.socket, str]:
        name = f"{self._prefix}-{next(self._numbers)}"
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inner.setblocking(False)
        try:
            inner.bind(f"\0{name}")
            while True:
                with contextlib.suppress(BlockingIOError):
                    inner.connect(self._private)
                    return inner, name
                await asyncio.sleep(0.002)  # a full backlog is EAGAIN: there is no event for it
        except BaseException:
            inner.close()
            raise
