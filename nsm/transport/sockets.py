"""URLs of the mesh, ``unix:///path`` and ``tcp://host:port``, to sockets that listen or are connected."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from nsm.model.errors import Code, NsmError, invalid
from nsm.transport.handshake import set_tcp_options, writable

BACKLOG: Final = 1024
_MAX_UNIX_PATH: Final = 107
_BUSY_WAIT: Final = 0.01
"""A full unix backlog gives EAGAIN and no event to wait for: seconds until the next try."""


@dataclass(frozen=True, slots=True)
class Address:
    """``path`` of a unix socket, or ``host`` (empty = all, or this host) and ``port``."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def url(self) -> str:
        """As it is written."""
        if self.path:
            return f"unix://{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


def parse_url(url: str) -> Address:
    """Of ``unix:///path`` or ``tcp://host:port``; NsmError INVALID_ARGUMENT."""
    expected = "unix:///path or tcp://host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise invalid("url", f"{expected} ({error})", url) from error
    if parts.scheme == "unix":
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or "\0" in path:
            raise invalid("url", expected, url)
        if len(os.fsencode(path)) > _MAX_UNIX_PATH:
            raise invalid("url", f"a socket path of at most {_MAX_UNIX_PATH} bytes", url)
        return Address(path=path)
    if parts.scheme != "tcp" or port is None or parts.path not in {"", "/"}:
        raise invalid("url", expected, url)
    return Address(host=parts.hostname or "", port=port)


class Listener:
    """A listening socket; ``url`` has the real port."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.sock: Final = sock
        self.address: Final = address
        self._file = _identity_of(address.path) if address.path else (0, 0)

    def close(self) -> None:
        """Stop listening; a unix socket's file goes unless another took the name meanwhile."""
        self.sock.close()
        if self.address.path:
            with suppress(OSError):
                if _identity_of(self.address.path) == self._file:
                    Path(self.address.path).unlink()


def _identity_of(path: str) -> tuple[int, int]:
    """Of a file; an inode number alone is used again at once."""
    status = Path(path).lstat()
    return status.st_ino, status.st_ctime_ns


async def listen(url: str) -> Listener:
    """Listen on a URL.

    Raises:
        NsmError: INVALID_ARGUMENT, ALREADY_EXISTS when it is taken, UNAVAILABLE with the reason.
    """
    address = parse_url(url)
    try:
        return _listen_unix(address) if address.path else await _listen_tcp(address)
    except OSError as error:
        code = Code.ALREADY_EXISTS if error.errno == errno.EADDRINUSE else Code.UNAVAILABLE
        raise NsmError(code, f"cannot listen on {url}: {error.strerror or error}") from error


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[socket.socket]:
    """A connected non-blocking socket, closed when the block fails; OSError says why it could not be."""
    address = parse_url(url)
    sock = await (connect_unix(address.path) if address.path else _connect_tcp(address))
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


async def connect_unix(path: str, *, name: bytes = b"") -> socket.socket:
    """Connect to a unix socket; ``name``: the abstract address of our own end."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if name:
            sock.bind(b"\0" + name)
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(_BUSY_WAIT)
            else:
                return sock
    except BaseException:
        sock.close()
        raise


async def _connect_tcp(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host or "localhost", address.port, type=socket.SOCK_STREAM)
    failure: OSError = ConnectionError(f"no address of {address.host}")
    for family, kind, protocol, _, target in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            set_tcp_options(sock)
            with suppress(BlockingIOError):
                sock.connect(target)
            await writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return sock
            failure = OSError(code, os.strerror(code))
        except OSError as error:
            failure = error
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise failure


def _listen_unix(address: Address) -> Listener:
    path = Path(address.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(address.path)
        path.chmod(0o777)  # mutual TLS is the guard; the directory decides who may knock
        sock.listen(BACKLOG)
        return Listener(sock, address)
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; OSError EADDRINUSE for a live one or another kind of file."""
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if is_socket:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
            except BlockingIOError:
                pass
    raise OSError(errno.EADDRINUSE, "a live socket or another file is there")


async def _listen_tcp(address: Address) -> Listener:
    loop = asyncio.get_running_loop()
    if address.host:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        family, _, _, _, target = found[0]
        is_dual = False
    else:
        is_dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if is_dual else socket.AF_INET
        target = ("", address.port)
    sock = socket.create_server(target[:2], family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    sock.setblocking(False)
    return Listener(sock, Address(host=address.host, port=sock.getsockname()[1]))
