"""Carries one connection: ciphertext and descriptors on the wire, plaintext HTTP/2 towards grpcio.

Callbacks of the event loop, no task: each readable socket is read once, turned by TLS and written at once. What the
other side does not take now stays pending, and its source is not read until it is gone, so that flow control
works end to end. HTTP/2 itself is never looked at.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from nsm.transport.tls import Tls, explain
from nsm.transport.wire import READ_SIZE, Wire

LINGER: Final = 1.0
"""Seconds that a finished connection waits for the other side's end, so that the last bytes are not lost."""
_WITHOUT_A_WORD: Final = "the peer ended the connection after the handshake, without a word: it refused us"
"""In TLS 1.3 the asking side's handshake ends before its certificate is judged, and not every refusal is an alert."""
_READS_PER_TURN: Final = 128
_BYTES_PER_TURN: Final = 4 * READ_SIZE


class Pump:
    """Owns both sockets until ``on_closed``; ``reason`` says why it ended (empty = in order)."""

    def __init__(
        self, wire: Wire, tls: Tls, private: socket.socket, on_closed: Callable[["Pump"], None]
    ) -> None:
        private.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self.wire: Final = wire
        self._tls = tls
        self._private = private
        self._on_closed = on_closed
        self._wire_fd = wire.fileno()
        self._private_fd = private.fileno()
        self._to_wire = bytearray()
        self._to_private = bytearray()
        self._wire_ended = False
        self._private_ended = False
        self._linger: asyncio.TimerHandle | None = None
        self.is_closed = False
        self._was_heard = False
        self.reason = ""

    def start(self) -> None:
        """Begin; what came with the end of the handshake goes first."""
        self._loop.add_reader(self._wire_fd, self._read_wire)
        self._loop.add_reader(self._private_fd, self._read_private)
        self._guarded(lambda: self._decrypt(b""))

    def close(self, reason: str = "") -> None:
        """End both sides now."""
        if self.is_closed:
            return
        self.is_closed = True
        self.reason = self.reason or reason
        if self._linger is not None:
            self._linger.cancel()
        for fd in (self._wire_fd, self._private_fd):
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        self.wire.close()
        self._private.close()
        self._on_closed(self)

    def finish(self) -> None:
        """Grpcio's calls are over, whether or not it ends its side: say good-bye to the peer, whose end is the end."""
        if not self._private_ended:
            self._guarded(self._hear_the_end)

    @property
    def is_ending(self) -> bool:
        """Whether the peer or grpcio has ended its side: of no use for new calls."""
        return self.is_closed or self._wire_ended or self._private_ended

    # from the wire to grpcio

    def _read_wire(self) -> None:
        self._guarded(self._receive)

    def _receive(self) -> None:
        """One read; more while descriptors come, for those come with one byte each (trap 21)."""
        parts: list[bytes] = []
        size = 0
        try:
            for _ in range(_READS_PER_TURN):
                data, has_fds = self.wire.receive()
                if not data:
                    self._wire_ended = True
                    break
                parts.append(data)
                size += len(data)
                if not has_fds and (len(data) < READ_SIZE or size >= _BYTES_PER_TURN):
                    break
        except BlockingIOError:
            pass
        self._decrypt(parts[0] if len(parts) == 1 else b"".join(parts))

    def _decrypt(self, data: bytes) -> None:
        plain, is_goodbye = self._tls.decrypt(data)
        for chunk in plain:
            self._give(chunk)
        answer = self._tls.pending()
        if answer:
            self._send(answer)
        if is_goodbye:
            self._wire_ended = True
        if self._wire_ended:
            if not self._was_heard and not self._private_ended:
                self.reason = _WITHOUT_A_WORD
            self._loop.remove_reader(self._wire_fd)
            self._end_private()

    def _give(self, data: bytes) -> None:
        self._was_heard = True
        if not self._to_private:
            try:
                sent = self._private.send(data)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return
            self._loop.add_writer(self._private_fd, self._write_private)
            self._loop.remove_reader(self._wire_fd)
            data = data[sent:]
        self._to_private += data

    def _write_private(self) -> None:
        self._guarded(self._flush_private)

    def _flush_private(self) -> None:
        try:
            sent = self._private.send(self._to_private)
        except BlockingIOError:
            return
        del self._to_private[:sent]
        if self._to_private:
            return
        self._loop.remove_writer(self._private_fd)
        if self._wire_ended:
            self._end_private()
        else:
            self._loop.add_reader(self._wire_fd, self._read_wire)

    def _end_private(self) -> None:
        """The peer has ended: grpcio reads the rest, then its end, and ends too."""
        if self._to_private:
            return
        if self._private_ended:
            self._finish_if_done()
            return
        try:
            self._private.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self._arm_linger()

    # from grpcio to the wire

    def _read_private(self) -> None:
        self._guarded(self._take)

    def _take(self) -> None:
        try:
            data = self._private.recv(READ_SIZE)
        except BlockingIOError:
            return
        if data:
            self._send(self._tls.encrypt(data))
            return
        self._hear_the_end()

    def _hear_the_end(self) -> None:
        self._private_ended = True
        self._loop.remove_reader(self._private_fd)
        self._send(self._tls.farewell())
        self._arm_linger()
        self._finish_if_done()

    def _send(self, data: bytes) -> None:
        if not self._to_wire:
            view = memoryview(data)
            try:
                while view:
                    view = view[self.wire.send(view) :]
            except BlockingIOError:
                self._loop.add_writer(self._wire_fd, self._write_wire)
                self._loop.remove_reader(self._private_fd)
                self._to_wire += view
            except OSError as error:
                self._hear_out(error)
            return
        self._to_wire += data

    def _write_wire(self) -> None:
        self._guarded(self._flush_wire)

    def _flush_wire(self) -> None:
        try:
            with memoryview(self._to_wire) as view:
                sent = self.wire.send(view)
        except BlockingIOError:
            return
        except OSError as error:
            self._hear_out(error)
            return
        del self._to_wire[:sent]
        if self._to_wire:
            return
        self._loop.remove_writer(self._wire_fd)
        if self._private_ended:
            self._finish_if_done()
        else:
            self._loop.add_reader(self._private_fd, self._read_private)

    # the end

    def _hear_out(self, error: OSError) -> None:
        """The peer takes no more: what it has said last still counts, and its alert tells more than a broken pipe."""
        was_ending = self.is_ending
        self._receive()
        self.close("" if was_ending else explain(error))

    def _finish_if_done(self) -> None:
        """Grpcio has ended and all is sent: end the wire; with the peer's end too all is over."""
        if not self._private_ended or self._to_wire or self.is_closed:
            return
        if self._wire_ended:
            self.close()
        else:
            self.wire.end()

    def _arm_linger(self) -> None:
        if self._linger is None and not self.is_closed:
            self._linger = self._loop.call_later(LINGER, self.close)

    def _guarded(self, step: Callable[[], None]) -> None:
        if self.is_closed:
            return
        try:
            step()
        except (ssl.SSLError, OSError) as error:
            self.close(
                "" if self.is_ending else explain(error)
            )  # last words to one that has left are no failure
