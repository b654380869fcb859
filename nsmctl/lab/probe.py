"""One end of a probe: UDP packets with sequence numbers, sent and audited here.

Run by path with ``python -I -S`` inside a workload's namespace, so it imports the standard library only and shares no
code with what it judges. It speaks lines of JSON: the first line on stdin is the order
``{"flows": [{"local": A, "remote": B, "port": P, "device": D, "netns": N}], "rate": packets/s, "seconds": S or null}``,
then ``go``, later ``report`` or ``stop``. ``rate`` is that of each flow; ``netns`` names another namespace than ours.
It answers ``listening``, then one report a question and one at the end: for each flow what it *sent* and what it
*received* (unique, duplicates, longest silence in ms, RTT samples).
Loss is the difference between one end's *sent* and the other's *received*; nobody's own word is enough.

RTT without further packets: each packet carries the newest sequence number seen from the peer and how long ago that
was; the peer subtracts. The drain after the last packet ends early once nothing came for that long.

Pace: above 1,000 packets/s a turn of one millisecond sends several, and what arrives meanwhile is read at its end, so
that 10,000 each way cost a tenth of a core (RTT then includes that millisecond). Who got no processor for a while does
not make up for it in one burst, which would test queues: the rest of the plan moves back.
"""

import ctypes
import json
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

HEADER = struct.Struct("!IIQQ")  # own number, newest number of the peer + 1, held for (ns), sent at (ns)
PADDING = bytes(40)
DRAIN_S = 0.5
TOGETHER = 8  # flows that send at one moment; hundreds in one burst would test queues, not connections
TURN_S = 0.001  # at most so many turns a second; faster flows send several packets in each
LATE_S = 0.02  # what a sender that is late may still make up for at once
RTT_LIMIT = 200_000
SO_BINDTODEVICE = 25
SO_RCVBUFFORCE = 33
BUFFER = 32 << 20  # bytes: packets sent through a ring count as 4 KiB each, and a second of them must fit
CLONE_NEWNET = 0x40000000


def socket_in(netns: str, family: int) -> socket.socket:
    """A UDP socket of another namespace; the caller's thread is back home afterwards. OSError."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(netns)
        try:
            return socket.socket(family, socket.SOCK_DGRAM)
        finally:
            enter(f"/proc/self/fd/{home}")
    finally:
        os.close(home)


def enter(netns: str) -> None:
    """Move this thread into a namespace. OSError."""
    target = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(target, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
    finally:
        os.close(target)


class Flow:
    """One stream each way between two addresses."""

    def __init__(self, order: dict[str, Any]) -> None:
        family = socket.AF_INET6 if ":" in order["local"] else socket.AF_INET
        netns = order.get("netns")
        self.socket = socket_in(netns, family) if netns else socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        widen(self.socket)
        if order.get("device"):
            self.socket.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, order["device"].encode() + b"\0")
        try:
            self.socket.bind((order["local"], order["port"]))
        except OSError as error:
            raise OSError(error.errno, error.strerror, order["local"]) from error
        self.remote = (order["remote"], order["port"])
        self.sent = 0
        self.refused = 0
        self.first_sent_at = 0
        self.last_sent_at = 0
        self.seen = bytearray()
        self.received = 0
        self.duplicates = 0
        self.newest = 0
        self.newest_at = 0
        self.last_at = 0
        self.silence = 0
        self.rtts: list[int] = []

    def send(self, now: int) -> None:
        """The next packet; one the kernel refuses counts as sent: it did not arrive."""
        held = now - self.newest_at if self.newest else 0
        packet = HEADER.pack(self.sent, self.newest, held, now) + PADDING
        self.sent += 1
        self.first_sent_at = self.first_sent_at or now
        self.last_sent_at = now
        try:
            self.socket.sendto(packet, self.remote)
        except OSError:
            self.refused += 1

    def receive(self, origin: list[int]) -> None:
        """Everything that waits; ``origin`` = own send times by number."""
        while True:
            try:
                data = self.socket.recv(2048)
            except OSError:
                return
            now = time.monotonic_ns()
            if len(data) < HEADER.size:
                continue
            number, echoed, held, _ = HEADER.unpack_from(data)
            if number >= len(self.seen):
                self.seen.extend(bytes(number + 1024 - len(self.seen)))
            if self.seen[number]:
                self.duplicates += 1
                continue
            self.seen[number] = 1
            self.received += 1
            if self.last_at:
                self.silence = max(self.silence, now - self.last_at)
            self.last_at = now
            if number + 1 > self.newest:
                self.newest, self.newest_at = number + 1, now
            if echoed and len(self.rtts) < RTT_LIMIT and echoed - 1 < len(origin):
                self.rtts.append(now - origin[echoed - 1] - held)

    def report(self) -> dict[str, Any]:
        """What this end can say."""
        return {
            "sent": self.sent,
            "sending_s": round((self.last_sent_at - self.first_sent_at) / 1e9, 3),
            "received": self.received,
            "duplicates": self.duplicates,
            "refused": self.refused,
            "silence_ms": round(self.silence / 1e6, 3),
            "rtts_us": [rtt // 1000 for rtt in self.rtts],
        }


class Probe:
    """All flows of this end, paced together."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.flows = [Flow(flow) for flow in order["flows"]]
        flows = range(len(self.flows))
        self.groups = [flows[at : at + TOGETHER] for at in range(0, len(flows), TOGETHER)]
        self.burst = max(1, round(order["rate"] * TURN_S))
        self.interval = round(1e9 * self.burst / order["rate"])
        seconds = order["seconds"]
        self.turns = None if seconds is None else math.ceil(seconds * 1e9 / self.interval) * len(self.groups)
        self.times: list[list[int]] = [[] for _ in self.flows]
        self.poller = select.poll()
        self.by_fd: dict[int, int] = {}
        for index, flow in enumerate(self.flows):
            self.by_fd[flow.socket.fileno()] = index
            self.poller.register(flow.socket, select.POLLIN)
        self.poller.register(0, select.POLLIN)
        self.buffer = b""

    def words(self) -> list[str]:
        """Complete lines on stdin; its end means stop."""
        data = os.read(0, 4096)
        if not data:
            return ["stop"]
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [line.decode().strip() for line in lines]

    def say(self, event: str) -> None:
        """One line with a report of every flow."""
        say({"event": event, "flows": [flow.report() for flow in self.flows]})

    def wait(self, timeout_ns: int) -> list[str]:
        """Receive until ``timeout_ns`` have passed, a packet was there or a word came; the words."""
        for fd, _ in self.poller.poll(max(0, timeout_ns) / 1e6):
            if fd == 0:
                return self.words()
            index = self.by_fd[fd]
            self.flows[index].receive(self.times[index])
        return []

    def pause(self, timeout_ns: int) -> list[str]:
        """As ``wait``, but who sends several packets a turn is not woken by each that arrives."""
        if self.burst == 1:
            return self.wait(timeout_ns)
        time.sleep(timeout_ns / 1e9)
        return self.wait(0)

    def obey(self, words: list[str]) -> bool:
        """Whether to go on."""
        if "report" in words:
            self.say("report")
        return "stop" not in words

    def run(self) -> None:
        """Send at the pace asked for until told to stop or the time is over, then drain."""
        words: list[str] = []
        while "go" not in words:
            words = self.wait(3600 * 10**9)
            if "stop" in words:
                return
        self.obey(words)
        start = due = time.monotonic_ns()
        turn = 0  # counts groups
        while self.turns is None or turn < self.turns:
            now = time.monotonic_ns()
            if now < due:
                if not self.obey(self.pause(due - now)):
                    break
                continue
            start += max(0, now - due - int(LATE_S * 1e9))
            self.send(self.groups[turn % len(self.groups)])
            turn += 1
            due = start + turn * self.interval // len(self.groups)
            if not self.obey(self.wait(0)):
                break
        self.drain()

    def send(self, group: range) -> None:
        """One turn of those flows."""
        for index in group:
            for _ in range(self.burst):
                now = time.monotonic_ns()
                self.times[index].append(now)
                self.flows[index].send(now)

    def drain(self) -> None:
        """What is still under way; ends once nothing came for ``DRAIN_S``."""
        before = -1
        while before != (before := sum(flow.received for flow in self.flows)):
            limit = time.monotonic_ns() + int(DRAIN_S * 1e9)
            while (left := limit - time.monotonic_ns()) > 0:
                self.wait(left)


def widen(receiver: socket.socket) -> None:
    """A probe that gets no processor for a while must not be what loses packets; beyond rmem_max only as root."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)


def say(message: dict[str, Any]) -> None:
    """One line of JSON on stdout."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Take the order, run it, report."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody reads what a probe says after its test
    first = b""
    while not first.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return
        first += byte
    try:
        probe = Probe(json.loads(first))
    except OSError as error:
        say({"event": "failed", "reason": str(error)})
        return
    say({"event": "listening"})
    probe.run()
    probe.say("done")


if __name__ == "__main__":
    main()
