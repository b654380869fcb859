"""A stream from one namespace that whoever it reaches answers: how long it went unanswered, and how much was lost.

For what moves from one endpoint to another under the same addresses: ``nsmctl.lab.probe`` knows one far end only.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from nsmctl.lab import namespaces

PORT = 4343
NUMBER = struct.Struct("!Q")
DRAIN_S = 0.5


class Answered:
    """Numbered packets to ``target`` at ``rate`` a second, and one socket in each of ``ends`` that sends them back."""

    def __init__(self, source: Path, target: str, ends: Mapping[str, Path], rate: float = 1000.0) -> None:
        self._target = (target, PORT)
        self._interval = 1 / rate
        self._sender = _socket(source)
        self._ends = {name: _socket(path, PORT) for name, path in ends.items()}
        self._changed = threading.Condition()
        self._answered: set[int] = set()
        self._by = dict.fromkeys(ends, 0)
        self._times: list[float] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answered")
        self.sent = 0

    def __enter__(self) -> Self:
        """Packets leave from here on."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last answers are waited for."""
        self._is_over.set()
        self._thread.join()
        for each in (self._sender, *self._ends.values()):
            each.close()

    def flows_to(self, end: str, seconds: float, count: int = 200) -> None:
        """Wait until ``end`` has sent back so many more from now on. AssertionError after ``seconds``."""
        with self._changed:
            wanted = self._by[end] + count
            assert self._changed.wait_for(lambda: self._by[end] >= wanted, seconds), f"nothing reaches {end}"

    def join(self, end: str, path: Path) -> None:
        """Answer in a namespace that came later."""
        with self._changed:
            self._ends[end] = _socket(path, PORT)

    def leave(self, end: str) -> None:
        """Nothing of ours stays in that namespace."""
        with self._changed:
            self._ends.pop(end).close()

    @property
    def lost(self) -> int:
        """Packets that nobody's answer came back to; for afterwards."""
        return self.sent - len(self._answered)

    @property
    def outage_ms(self) -> float:
        """The longest time without an answer; for afterwards."""
        gaps = (later - earlier for earlier, later in zip(self._times, self._times[1:], strict=False))
        return 1000 * max(gaps, default=0.0)

    def __str__(self) -> str:
        return f"outage {self.outage_ms:.0f} ms, {self.lost} of {self.sent} packets lost"

    def _run(self) -> None:
        due = time.monotonic()
        while not self._is_over.is_set():
            self._take(max(0.0, due - time.monotonic()))
            while due <= time.monotonic():
                with suppress(OSError):  # no route while the connection is made anew: lost
                    self._sender.sendto(NUMBER.pack(self.sent), self._target)
                self.sent += 1
                due += self._interval
        end = time.monotonic() + DRAIN_S
        while self.lost and (left := end - time.monotonic()) > 0:
            self._take(left)

    def _take(self, seconds: float) -> None:
        """Send back what reached an end, note what came back."""
        with self._changed:
            names = {each: name for name, each in self._ends.items()}
        ready, _, _ = select.select([self._sender, *names], [], [], seconds)
        with self._changed:
            for each in ready:
                if each is self._sender:
                    self._note()
                elif names[each] in self._ends:
                    self._send_back(each, names[each])
            self._changed.notify_all()

    def _send_back(self, end: socket.socket, name: str) -> None:
        with suppress(OSError):
            while True:
                packet, source = end.recvfrom(64)
                end.sendto(packet, source)
                self._by[name] += 1

    def _note(self) -> None:
        with suppress(OSError):
            while True:
                (number,) = NUMBER.unpack(self._sender.recv(64))
                self._answered.add(number)
                self._times.append(time.monotonic())


def _socket(path: Path, port: int = 0) -> socket.socket:
    """A UDP socket for IPv4 in a namespace; without a port its address is that of the route."""
    with namespaces.entered(path):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind(("0.0.0.0", port))
    return made
