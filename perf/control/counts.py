"""What an operation costs, counted from outside the agent by strace: messages to VPP, netlink, processes, syncs.

A VPP message is recognised on the wire: whatever is written to a stream socket and is a chain of frames with VPP's
16-byte header (8 bytes zero, length, 4 bytes zero). A round trip ends where something comes back on that socket.
"""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from typing import Final

from nsmctl.errors import LabError

_CALLS: Final = "sendto,sendmsg,write,writev,recvfrom,recvmsg,read,execve,fsync,fdatasync"
_LINE: Final = re.compile(r"^(?:\d+\s+)?(?P<call>\w+)\((?P<fd>\d+)?(?:<(?P<what>[^>]*)>)?(?P<rest>.*)")
_NETLINK: Final = re.compile(r"nlmsg_type=(\w+)")
_BYTES: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HEADER: Final = Struct("!QII")
_NUMBERS_OF_ROUTE: Final = 16
"""The first number of rtnetlink; every fourth from its third on only asks (RTM_GET...)."""


@dataclass
class Counts:
    """Sums over the operations traced."""

    vpp_messages: int = 0
    vpp_round_trips: int = 0
    netlink_writes: int = 0
    netlink_reads: int = 0
    processes: int = 0
    syncs: int = 0

    def each(self, operations: int) -> dict[str, tuple[float, float]]:
        """By operation, in pairs."""
        return {
            "VPP messages | round trips": (self.vpp_messages / operations, self.vpp_round_trips / operations),
            "netlink writes | reads": (self.netlink_writes / operations, self.netlink_reads / operations),
            "processes | disk syncs": (self.processes / operations, self.syncs / operations),
        }


@contextmanager
def counted(pid: int) -> Iterator[Counts]:
    """Trace a process and its threads; the result is complete when the context ends. LabError without strace."""
    result = Counts()
    with TemporaryDirectory(prefix="nsm-perf-") as folder:
        log = Path(folder) / "strace"
        words = ["strace", "-f", "-yy", "-xx", "-s", "65536", "-e", f"trace={_CALLS}", "-e", "signal=none"]
        try:
            tracer = subprocess.Popen(
                [*words, "-o", str(log), "-p", str(pid)], stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError:
            raise LabError("strace was not found", hint="install the package strace") from None
        try:
            assert tracer.stderr is not None
            first = tracer.stderr.readline()
            if "attached" not in first:
                raise LabError(f"strace could not attach: {first.strip()}")
            yield result
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=30)
        count(log.read_text(), result)


def count(text: str, into: Counts) -> None:
    """Read a log of strace ``-f -yy -xx``."""
    waiting: set[str] = set()
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        call, socket, rest = found["call"], found["what"] or found["fd"] or "", found["rest"]
        if call == "execve":
            into.processes += 1
        elif call in {"fsync", "fdatasync"}:
            into.syncs += 1
        elif call.startswith(("recv", "read")):
            waiting.discard(socket)
        elif "nlmsg_type=" in rest:
            _netlink(rest, into)
        elif messages := _frames(rest):
            into.vpp_messages += messages
            if socket not in waiting:
                into.vpp_round_trips += 1
                waiting.add(socket)


def _netlink(rest: str, into: Counts) -> None:
    for name in _NETLINK.findall(rest):
        if _asks(name):
            into.netlink_reads += 1
        else:
            into.netlink_writes += 1


def _asks(name: str) -> bool:
    """``name``: RTM_GETLINK, or its number, as strace knows the family in its own namespace only."""
    if not name.startswith("0x"):
        return "GET" in name
    return int(name, 16) >= _NUMBERS_OF_ROUTE and int(name, 16) % 4 == 2


def _frames(rest: str) -> int:
    """How many of VPP's frames a write holds; 0 = it is something else."""
    data = b"".join(bytes.fromhex(part.replace("\\x", "")) for part in _BYTES.findall(rest))
    at = number = 0
    while at + _HEADER.size <= len(data):
        queue, length, reserved = _HEADER.unpack_from(data, at)
        if queue or reserved or not length:
            return 0
        at += _HEADER.size + length
        number += 1
    return number if at == len(data) else 0
