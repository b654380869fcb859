"""The TLS handshake over a wire, and waiting for sockets."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from nsm.model.errors import Code, NsmError
from nsm.transport.tls import Tls, Verified, explain
from nsm.transport.wire import Wire


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


async def readable(what: _HasFileno) -> None:
    """Return when there is something to read (or the end)."""
    loop = asyncio.get_running_loop()
    await _event(what.fileno(), loop.add_reader, loop.remove_reader)


async def writable(what: _HasFileno) -> None:
    """Return when there is room to write, or a connect has ended."""
    loop = asyncio.get_running_loop()
    await _event(what.fileno(), loop.add_writer, loop.remove_writer)


async def handshake(wire: Wire, tls: Tls) -> Verified:
    """Complete the handshake and verify the peer.

    Raises:
        NsmError: UNAUTHENTICATED when either side refuses the other; UNAVAILABLE when the connection ends.
    """
    data = b""
    try:
        while True:
            is_complete = tls.shake(data)
            await _send_all(wire, tls.pending())
            if is_complete:
                return tls.verified()
            data = await _receive(wire)
    except ssl.SSLError as error:
        await _send_alert(wire, tls)
        raise NsmError(Code.UNAUTHENTICATED, explain(error)) from error
    except OSError as error:
        raise NsmError(Code.UNAVAILABLE, f"TLS handshake: {explain(error)}") from error


async def _event(
    fd: int, add: Callable[[int, Callable[[], Any]], None], remove: Callable[[int], bool]
) -> None:
    happened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(fd, lambda: None if happened.done() else happened.set_result(None))
    try:
        await happened
    finally:
        remove(fd)


async def _receive(wire: Wire) -> bytes:
    while True:
        try:
            data, _ = wire.receive()
        except BlockingIOError:
            await readable(wire)
            continue
        if not data:
            raise ConnectionResetError("the peer closed the connection")
        return data


async def _send_all(wire: Wire, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[wire.send(view) :]
        except BlockingIOError:
            await writable(wire)


async def _send_alert(wire: Wire, tls: Tls) -> None:
    """Tell the peer why, if it still listens; the failure itself is what counts."""
    with suppress(OSError):
        await _send_all(wire, tls.pending())


def set_tcp_options(sock: socket.socket) -> None:
    """No delay for small frames; a peer that vanished is noticed within 25 s, also by an idle stream."""
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
