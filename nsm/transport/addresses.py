"""URLs of NSM as socket addresses: ``unix:///path``, ``tcp://host:port`` (reference §3.8)."""

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nsm.model.errors import Code, NsmError, invalid

BACKLOG: Final = 1024


def split(url: str) -> tuple[str, str, int]:
    """(``unix``, path, 0) or (``tcp``, host, port). Raises NsmError INVALID_ARGUMENT for another URL."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("//") else path
        if path:
            return "unix", path, 0
    text = url if "://" in url else f"tcp://{url}"
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme == "tcp" and port is not None:
        return "tcp", parts.hostname or "", port
    raise invalid("url", "unix:///path or tcp://host:port", url)


async def dial(url: str) -> socket.socket:
    """A connected, non-blocking socket. OSError as the system says."""
    kind, host, port = split(url)
    loop = asyncio.get_running_loop()
    if kind == "unix":
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.setblocking(False)
        try:
            await _connect_unix(peer, host)
        except BaseException:
            peer.close()
            raise
        return peer
    infos = await loop.getaddrinfo(host or "localhost", port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(errno.EADDRNOTAVAIL, f"no address for {host!r}")
    for family, type_, protocol, _, address in infos:
        peer = socket.socket(family, type_, protocol)
        peer.setblocking(False)
        try:
            await loop.sock_connect(peer, address)
        except OSError as error:
            peer.close()
            failure = error
            continue
        except BaseException:
            peer.close()
            raise
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer
    raise failure


async def _connect_unix(peer: socket.socket, path: str) -> None:
    """A full backlog is EAGAIN on unix sockets, not EINPROGRESS: ask again until the caller's deadline."""
    pause = 0.002
    while True:
        try:
            peer.connect(path)
        except BlockingIOError:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.05)
        else:
            return


def listen(url: str) -> tuple[list[socket.socket], str]:
    """Listening sockets and the URL with the port that was chosen. NsmError says which URL cannot be had and why."""
    kind, host, port = split(url)
    try:
        if kind == "unix":
            return [_listen_unix(host)], url
        return _listen_tcp(host, port)
    except OSError as error:
        code = Code.ALREADY_EXISTS if error.errno == errno.EADDRINUSE else Code.FAILED_PRECONDITION
        raise NsmError(
            code, f"cannot listen on {url}: {error.strerror or error}", field="listen_on"
        ) from error


def _listen_unix(path: str) -> socket.socket:
    """As upstream: folders are made, a socket left by somebody is replaced, everybody may connect."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_socket():
        file.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, 0o777)  # noqa: S103, PTH101 - access is decided by TLS, not by the file's mode
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _listen_tcp(host: str, port: int) -> tuple[list[socket.socket], str]:
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    try:
        for family, type_, protocol, _, address in infos:
            listener = socket.socket(family, type_, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address[0], port, *address[2:]))
            listener.listen(BACKLOG)
            listener.setblocking(False)
            port = listener.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    shown = f"[{host}]" if ":" in host else host
    return listeners, f"tcp://{shown}:{port}"
