"""One connection: TLS and descriptors towards the peer, plain bytes towards grpcio.

``outer`` is the peer's socket, ``inner`` the private one. Bytes go both ways unchanged; descriptors are taken off
what arrives (before the bytes that carried them go on) and put onto the next bytes that leave. Reading from a side
pauses while the other side's queue is long, so a slow reader slows its sender and nobody's memory grows.
"""

import array
import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nsm.model.errors import Code, NsmError
from nsm.transport.descriptors import Descriptors

CHUNK: Final = 65536
HIGH_WATER: Final = 262144
FDS_PER_READ: Final = 253
"""SCM_MAX_FD of the kernel: what one message can carry."""
FDS_PER_WRITE: Final = 64
"""What a Go peer takes from one read."""
_CONTROL: Final = socket.CMSG_SPACE(FDS_PER_READ * array.array("i").itemsize)


class Tunnel:
    """Runs from ``start`` until one side ends; ``on_end`` is called once, with everything closed."""

    def __init__(
        self, outer: socket.socket, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._outer = outer
        self._inner: socket.socket | None = None
        self.tls = tls
        self._in_bio = incoming
        self._out_bio = outgoing
        self._to_outer = bytearray()
        self._to_inner = bytearray()
        self._fds_out: list[int] = []
        self._is_unix = outer.family == socket.AF_UNIX
        self._reading = {"outer": False, "inner": False}
        self._writing = {"outer": False, "inner": False}
        self._eof = {"outer": False, "inner": False}
        self.descriptors = Descriptors()
        self.closed = False
        self.reason = ""
        self.on_end: Callable[[], None] = lambda: None
        self._handshake: asyncio.Future[None] | None = None

    @property
    def passes_fds(self) -> bool:
        """Whether descriptors can cross this connection."""
        return self._is_unix

    # handshake

    async def handshake(self, timeout: float) -> None:
        """Finish TLS. Raises NsmError UNAVAILABLE with OpenSSL's reason, or that the time is over."""
        self._handshake = self._loop.create_future()
        self._read("outer", on=True)
        try:
            self._shake()
            async with asyncio.timeout(timeout):
                await self._handshake
        except TimeoutError:
            self.close("handshake timed out")
            raise NsmError(Code.UNAVAILABLE, f"no TLS handshake within {timeout:g} s") from None
        except BaseException:
            self.close("handshake failed")
            raise
        finally:
            self._handshake = None
            if not self.closed:
                self._read("outer", on=False)

    def _shake(self) -> None:
        waiting = self._handshake
        if waiting is None or waiting.done():
            return
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush_tls()
            return
        except ssl.SSLError as error:
            self._flush_tls()  # the alert that says why
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            waiting.set_exception(NsmError(Code.UNAVAILABLE, f"TLS handshake failed: {reason}"))
            return
        self._flush_tls()
        waiting.set_result(None)

    # life

    def start(self, inner: socket.socket) -> None:
        """Begin to relay; plain bytes that came with the handshake go first."""
        self._inner = inner
        self._decrypt()
        if not self.closed:
            self._read("outer", on=True)
            self._read("inner", on=True)

    def close(self, reason: str = "") -> None:
        """Close both sockets and all descriptors, at once."""
        if self.closed:
            return
        self.closed, self.reason = True, reason
        waiting = self._handshake
        if waiting is not None and not waiting.done():
            waiting.set_exception(NsmError(Code.UNAVAILABLE, f"the peer ended the TLS handshake: {reason}"))
        for name, side in (("outer", self._outer), ("inner", self._inner)):
            if side is not None and side.fileno() >= 0:
                if self._reading[name]:
                    self._loop.remove_reader(side)
                if self._writing[name]:
                    self._loop.remove_writer(side)
                side.close()
        self.descriptors.close()
        for fd in self._fds_out:
            os.close(fd)
        self._fds_out.clear()
        self.on_end()

    def send_fd(self, fd: int) -> None:
        """Queue a duplicate of ``fd``; it leaves with the next bytes."""
        self._fds_out.append(os.dup(fd))

    # readiness

    def _side(self, name: str) -> socket.socket:
        side = self._outer if name == "outer" else self._inner
        assert side is not None
        return side

    def _read(self, name: str, *, on: bool) -> None:
        if self._reading[name] == on or (on and self._eof[name]):
            return
        self._reading[name] = on
        if on:
            ready = self._outer_readable if name == "outer" else self._inner_readable
            self._loop.add_reader(self._side(name), ready)
        else:
            self._loop.remove_reader(self._side(name))

    def _write(self, name: str, *, on: bool) -> None:
        if self._writing[name] == on:
            return
        self._writing[name] = on
        if on:
            flush = self._flush_outer if name == "outer" else self._flush_inner
            self._loop.add_writer(self._side(name), flush)
        else:
            self._loop.remove_writer(self._side(name))

    # peer -> grpcio

    def _outer_readable(self) -> None:
        try:
            data = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        if not data:
            self._outer_ended("the peer closed the connection")
            return
        self._in_bio.write(data)
        if self._inner is None:
            self._shake()
        else:
            self._decrypt()

    def _receive(self) -> bytes:
        """The next bytes; descriptors that came with them are kept first."""
        if not self._is_unix:
            return self._outer.recv(CHUNK)
        data, control, flags, _ = self._outer.recvmsg(CHUNK, _CONTROL, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        self.descriptors.add(fds)
        if flags & socket.MSG_CTRUNC:
            raise OSError(0, "descriptors were lost: control data was cut (MSG_CTRUNC)")
        return data

    def _decrypt(self) -> None:
        try:
            while True:
                plain = self.tls.read(CHUNK)
                if not plain:
                    raise ssl.SSLZeroReturnError
                self._to_inner += plain
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._flush_inner()
            self._outer_ended("the peer closed TLS")
            return
        except ssl.SSLError as error:
            self.close(f"TLS: {error.reason or error}")
            return
        self._flush_tls()  # answers to key updates
        self._flush_inner()

    def _outer_ended(self, reason: str) -> None:
        self._eof["outer"] = True
        if self._inner is None:
            self.close(reason)
            return
        self._read("outer", on=False)
        self.reason = reason
        self._finish()

    def _flush_inner(self) -> None:
        if self.closed or self._inner is None:
            return
        try:
            while self._to_inner:
                sent = self._inner.send(memoryview(self._to_inner)[:HIGH_WATER])
                del self._to_inner[:sent]
        except (BlockingIOError, InterruptedError):
            self._write("inner", on=True)
            self._read("outer", on=len(self._to_inner) < HIGH_WATER)
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        self._write("inner", on=False)
        self._read("outer", on=True)
        self._finish()

    # grpcio -> peer

    def _inner_readable(self) -> None:
        assert self._inner is not None
        try:
            data = self._inner.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        if not data:
            self._eof["inner"] = True
            self._read("inner", on=False)
            with suppress(ssl.SSLError):
                self.tls.unwrap()
            self._flush_tls()
            self._finish()
            return
        try:
            self.tls.write(data)
        except ssl.SSLError as error:
            self.close(f"TLS: {error.reason or error}")
            return
        self._flush_tls()

    def _flush_tls(self) -> None:
        if self._out_bio.pending:
            self._to_outer += self._out_bio.read()
        self._flush_outer()

    def _flush_outer(self) -> None:
        if self.closed:
            return
        try:
            while self._to_outer:
                sent = self._send()
                del self._to_outer[:sent]
        except (BlockingIOError, InterruptedError):
            self._write("outer", on=True)
            if self._inner is not None:
                self._read("inner", on=len(self._to_outer) < HIGH_WATER)
            return
        except OSError as error:
            self.close(error.strerror or str(error))
            return
        self._write("outer", on=False)
        if self._inner is not None:
            self._read("inner", on=True)
            self._finish()

    def _send(self) -> int:
        """One write: a byte with up to 64 descriptors while some wait, then everything else."""
        if not (self._fds_out and self._inner is not None):
            return self._outer.send(memoryview(self._to_outer)[:HIGH_WATER])
        batch = self._fds_out[:FDS_PER_WRITE]
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", batch))
        sent = self._outer.sendmsg([memoryview(self._to_outer)[:1]], [rights])
        del self._fds_out[: len(batch)]
        for fd in batch:
            os.close(fd)
        return sent

    def _finish(self) -> None:
        """Close when a side has ended and what it sent is delivered."""
        inner_done = self._eof["inner"] and not self._to_outer
        outer_done = self._eof["outer"] and not self._to_inner
        if inner_done or outer_done:
            self.close(self.reason)
