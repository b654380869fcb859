"""What an agent wrote, counted from outside: netlink and WireGuard's UAPI by strace, VPP's API by VPP's own trace."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsmctl.lab.counters import vppctl
from nsmctl.lab.daemons import Daemon

_STRACE: Final = (
    shutil.which("strace") or "strace", "-f", "-qq", "-I", "2", "-s", "64", "-e", "signal=none",
    "-e", "trace=sendto,sendmsg,write,writev",
)  # fmt: skip
_NETLINK: Final = re.compile(r"nlmsg_type=(?:0x([0-9a-f]+)[^,]*|(RTM_\w+))")
_UAPI: Final = re.compile(r'"set=1')
_READS: Final = re.compile(
    r"_(dump|get|details)(_v\d+)?$|^(show_|control_ping|want_|sw_interface_dump|api_versions)"
)
_CLIENT: Final = re.compile(r"^(memclnt|sockclnt|get_first_msg_id|trace_plugin)")


def netlink_writes(log: Path) -> list[str]:
    """What was sent to change something: RTM_NEW, DEL and SET by name or number, and ``set=1`` of WireGuard's UAPI."""
    text = log.read_text(errors="replace")
    found = ["uapi set"] * len(_UAPI.findall(text))
    for number, name in _NETLINK.findall(text):
        if name and not name.startswith("RTM_GET"):
            found.append(name)
        elif number and int(number, 16) >= 16 and int(number, 16) % 4 != 2:  # 2 = the GET of each family
            found.append(f"RTM {int(number, 16)}")
    return found


@dataclass(frozen=True, slots=True)
class Traced(Daemon):
    """A daemon that starts under strace, which writes to ``trace``; its process id is the daemon's own."""

    trace: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """``strace -D``: the tracer is the grandchild."""
        plain = Daemon(self.name, self.program, self.netns, self.log, self.env, self.arguments)
        return (*_STRACE, "-D", "-o", self.trace, *plain.argv)


def traced(daemon: Daemon, trace: Path) -> Traced:
    """The daemon, to be started under strace."""
    return Traced(
        daemon.name, daemon.program, daemon.netns, daemon.log, daemon.env, daemon.arguments, str(trace)
    )


def end_trace(pid: int) -> None:
    """Detach the tracer of a process and wait until it is gone; the process goes on."""
    tracer = _tracer(pid)
    if not tracer:
        return
    fd = os.pidfd_open(tracer)
    try:
        os.kill(tracer, 15)
        _until(lambda: _tracer(pid) == 0)
    finally:
        os.close(fd)


@contextmanager
def tracing(pid: int, trace: Path) -> Iterator[None]:
    """Strace a running process, all its threads, while the block runs."""
    tracer = subprocess.Popen([*_STRACE, "-o", str(trace), "-p", str(pid)], stderr=subprocess.DEVNULL)
    try:
        _until(
            lambda: all(_tracer(int(task.name)) == tracer.pid for task in Path(f"/proc/{pid}/task").iterdir())
        )
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def _tracer(task: int) -> int:
    status = Path(f"/proc/{task}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("TracerPid:")).split()[1])


def _until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "strace did not get hold of it"
        time.sleep(0.01)


@contextmanager
def vpp_trace(cli: Path) -> Iterator[list[str]]:
    """Names of the messages VPP got while the block ran, reads and connecting left out; complete when it ends."""
    vppctl(cli, "api trace free")
    vppctl(cli, "api trace on")
    writes: list[str] = []
    try:
        yield writes
    finally:
        shown = vppctl(cli, "api trace dump")
        names = re.findall(r"^vl_api_(\w+?)_t:", shown, re.MULTILINE)
        writes += [name for name in names if not _READS.search(name) and not _CLIENT.match(name)]
        writes += ["the trace was not on"] * ("is enabled" not in vppctl(cli, "api trace status"))


__all__ = ["end_trace", "netlink_writes", "traced", "tracing", "vpp_trace"]
