"""One unix socket per identity, and who stands in front of it.

gRPC tells a handler neither the peer's credentials nor the socket it came in by. So each identity's socket is ours:
we ask the kernel who connected (SO_PEERCRED), then pass the bytes on to the gRPC server's private socket from a
connection bound to a name of its own, by which the handler finds the answer again. A process that may not have the
identity is let through too, to be told why: PERMISSION_DENIED instead of a closed connection.
"""

import asyncio
import contextlib
import os
import secrets
import socket
import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from nsm.identity.errors import IdentityError
from nsm.identity.files import guard_directory
from nsm.identity.registration import Entry
from nsm.identity.workload_api import Caller

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid
_CHUNK: Final = 1 << 16
_log: Final = structlog.get_logger(__name__)


@dataclass(slots=True)
class Door:
    """An open socket of one identity and the connections through it."""

    entry: Entry
    server: asyncio.Server
    inode: int
    passing: set[asyncio.Task[None]] = field(default_factory=set)


class Doors:
    """The sockets of all registered identities, in front of the gRPC server at ``private``."""

    def __init__(self, private: Path) -> None:
        self._private = private
        self._doors: dict[Path, Door] = {}
        self._callers: dict[str, Caller] = {}
        self._prefix = f"nsm-identity-{secrets.token_hex(16)}"
        self._count = 0

    def caller(self, peer: str) -> Caller:
        """Who is behind gRPC's ``unix-abstract:<name>``; connections that came by no door get nothing."""
        return self._callers.get(
            peer.removeprefix("unix-abstract:"), Caller("", "expected a connection by an identity's socket")
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The identities that have an open socket."""
        return tuple(door.entry for door in self._doors.values())

    async def open(self, entry: Entry) -> None:
        """Listen on the entry's socket; it appears with its final owner and mode.

        Raises:
            IdentityError: the directory is unsafe, the socket is in use, or may not be given away.
        """
        is_shared = entry.uid != os.geteuid() or entry.gid is not None
        guard_directory(entry.socket.parent, is_shared=is_shared)
        clear_socket(entry.socket)
        listener = _listen(entry)
        inode = entry.socket.stat().st_ino

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._pass(door, reader, writer)

        server = await asyncio.start_unix_server(serve, sock=listener, start_serving=False)
        door = Door(entry, server, inode)
        self._doors[entry.socket] = door
        await server.start_serving()

    async def close(self, entry: Entry) -> None:
        """Stop listening, end the connections, remove the socket if it is still ours."""
        door = self._doors.pop(entry.socket)
        door.server.close()
        with contextlib.suppress(OSError):
            if entry.socket.stat().st_ino == door.inode:
                entry.socket.unlink()
        for task in door.passing:
            task.cancel()
        if door.passing:
            await asyncio.wait(door.passing)

    async def close_all(self) -> None:
        """Close every door."""
        for door in list(self._doors.values()):
            await self.close(door.entry)

    async def _pass(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from the first byte to the last."""
        task = asyncio.current_task()
        assert task is not None
        door.passing.add(task)
        name = f"{self._prefix}-{self._count}"
        self._count += 1
        self._callers[name] = _identify(door.entry, writer.get_extra_info("socket"))
        try:
            await self._relay(name, reader, writer)
        except asyncio.CancelledError:
            pass  # the door was closed; nobody awaits this task but `close`
        except OSError as error:
            _log.debug("connection.lost", socket=str(door.entry.socket), reason=str(error))
        finally:
            door.passing.discard(task)
            del self._callers[name]
            writer.close()

    async def _relay(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Bytes both ways between a connection and the private socket, until either end is done."""
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        inner.setblocking(False)
        try:
            inner.bind(f"\0{name}")
            await asyncio.get_running_loop().sock_connect(inner, str(self._private))
            inner_reader, inner_writer = await asyncio.open_unix_connection(sock=inner)
        except BaseException:
            inner.close()
            raise
        ways = {
            asyncio.create_task(_copy(reader, inner_writer), name=f"{name}-in"),
            asyncio.create_task(_copy(inner_reader, writer), name=f"{name}-out"),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            inner_writer.close()  # before the await: a door that closes just now cancels us in it
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


def clear_socket(path: Path) -> None:
    """Remove the socket of a process that is gone; IdentityError if it is alive or no socket."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise IdentityError(f"{path}: expected a place for a socket, found another kind of file")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
        raise IdentityError(f"{path}: another process serves this socket")
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be used for a socket: {error.strerror or error}") from error


def _listen(entry: Entry) -> socket.socket:
    """A listening socket with the entry's owner and mode 0600, renamed into place."""
    temporary = entry.socket.with_name(f".{secrets.token_hex(3)}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        previous = os.umask(0o177)
        try:
            listener.bind(str(temporary))
        finally:
            os.umask(previous)
        if entry.uid != os.geteuid() or entry.gid is not None:
            os.chown(temporary, entry.uid, -1 if entry.gid is None else entry.gid)
        listener.listen(64)
        listener.setblocking(False)
        temporary.rename(entry.socket)
    except OSError as error:
        listener.close()
        temporary.unlink(missing_ok=True)
        hint = ""
        if isinstance(error, PermissionError):
            hint = f"; nsm-identity runs as uid {os.geteuid()}, only root gives sockets to other users"
        raise IdentityError(f"{entry.socket}: cannot listen: {error.strerror or error}{hint}") from error
    return listener


def _identify(entry: Entry, connection: socket.socket) -> Caller:
    """Whether the kernel's word for the peer fits the entry."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    refusal = entry.refusal(uid, gid)
    if refusal:
        _log.warning(
            "audit", action="fetch-svid", spiffe_id=entry.spiffe_id, pid=pid, uid=uid, gid=gid, reason=refusal
        )
    return Caller(entry.spiffe_id, refusal)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
