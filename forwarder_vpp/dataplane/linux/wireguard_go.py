"""wireguard-go: WireGuard in user space, one process a tunnel, that outlives the agent and is adopted by the next.

The device belongs into the workload's namespace (which may be the node's: then none of what follows is needed), the
UDP socket into the node's: all sockets of a process are in the namespace it was started in. So the TUN device is made
outside (a descriptor opened inside the workload's namespace would keep that one alive) and moved, and only then the
process is started, at the node, with its descriptor. By then the device is up where it belongs: the process would
take the move for an interface that went down, and notice that it is up only a second later. What it looks up at the
node is the stand-in of the lane (``tun_lanes``).

A process makes its configuration socket in /run/wireguard, under the name its device has at its start. It is started
by a thread whose own mounts show a folder of ours at /run, which works without privileges too; in there ``wireguard``
leads to the process's own descriptor 4, the tunnel's folder.
"""

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from forwarder_vpp.dataplane.linux import uapi, udp_buffers
from forwarder_vpp.dataplane.linux.inotify_room import InotifyRoom
from forwarder_vpp.dataplane.linux.objects.wireguard_device import port_taken
from forwarder_vpp.dataplane.linux.tun_lanes import TUN, Lanes
from forwarder_vpp.dataplane.netlink import syscalls
from forwarder_vpp.dataplane.priority import prefer
from nsm.model.errors import Code, NsmError

PROGRAM: Final = "wireguard-go"

_LOG: Final = structlog.get_logger(__name__)
_PLAIN_SINCE: Final = 20230223
"""Versions before this one speak TUN with a packet information header."""
_START_TIMEOUT: Final = 5.0
_PAUSE: Final = 0.002
_LANES: Final = 2
_TUN_FD, _FOLDER_FD = 3, 4
_VERSION: Final = re.compile(r"v?\d+\.\d+\.(\d{8})")
_NSFS_MOUNT: Final = re.compile(r"^\S+ \S+ \S+ net:\[\d+\] (\S+) ", re.MULTILINE)


class WireguardGo:
    """Starts, finds and ends the processes of one forwarder; every method blocks."""

    def __init__(self, run_dir: Path, instance: str, room: InotifyRoom | None = None) -> None:
        self._shown = run_dir / "shown"
        self._tunnels = run_dir / "tunnels"
        self._binary = shutil.which(PROGRAM)
        self._children: set[int] = set()
        self._room = room or InotifyRoom()
        self._room.leave()  # what a killed agent left
        self._launcher = ThreadPoolExecutor(1, "wireguard-go", initializer=self._own_mounts)
        self.lanes = Lanes(instance, _LANES)
        """Where devices come from."""
        self.asking = ThreadPoolExecutor(1, "wireguard-go-ask")
        """Where the processes are asked: those who wait for an answer must not keep others from being started."""

    def refusal(self) -> str:
        """Why there can be no such process here, and what to do; empty if there can."""
        return refusal(self._binary)

    def close(self) -> None:
        """Let go; the processes go on."""
        self._launcher.shutdown()
        self.asking.shutdown()
        self._room.leave()
        self.lanes.close()
        self._reap()

    def socket_of(self, name: str) -> Path:
        """Where the process of tunnel ``name`` is configured; a file that is not there if there is none."""
        folder = self._tunnels / name
        return next(folder.glob("*.sock"), folder / "none")

    def names(self) -> list[str]:
        """The tunnels that have a folder, whether or not anyone listens."""
        return sorted(folder.name for folder in self._tunnels.glob("*"))

    def start(self, name: str, make: Callable[..., int], place: Callable[[], None]) -> None:
        """A process for tunnel ``name``, with a device of ``make`` that ``place`` takes to where it belongs, and up.

        ``make(plain=…)`` gives its descriptor (plain: no information header); its name must be known at the node.
        Nothing stays on failure.
        """
        self._reap()
        self._room.take()
        with contextlib.ExitStack() as stack:
            tun = make(plain=self._is_plain)
            stack.callback(os.close, tun)
            place()
            try:
                self._run(name, tun)
            except BaseException:
                self.end(name)
                raise

    def widen(self, name: str) -> None:
        """Room in its UDP sockets for what comes while the process waits for its turn; its port is set by now."""
        try:
            with uapi.connect(self.socket_of(name)) as client:
                udp_buffers.widen(uapi.owner_of(client))
        except OSError as error:
            _LOG.warning("wireguard.narrow", tunnel=name, reason=str(error))

    def end(self, name: str) -> None:
        """End the process of a tunnel and wait until it has gone; its device goes with it."""
        uapi.end(self.socket_of(name))
        with contextlib.suppress(FileNotFoundError):
            (self._tunnels / name).rmdir()
        self._reap()

    def _reap(self) -> None:
        for process in tuple(self._children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(process)

    def _run(self, name: str, tun: int) -> None:
        """Start the process and wait until it listens; on failure it is killed."""
        place = self._tunnels / name
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.ExitStack() as stack:
            folder = _opened(stack, place, os.O_PATH | os.O_DIRECTORY)  # here: the launcher has another /run
            process = self._launcher.submit(self._spawn, name, tun, folder).result()
            stack.callback(os.close, process)
            try:
                self._await_socket(name, process)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                uapi.ended(process, _START_TIMEOUT)
                raise

    def _spawn(self, name: str, tun: int, folder: int) -> int:
        """Start one; the process, as a descriptor. Its arguments name the tunnel, the device says its own name."""
        assert self._binary is not None
        with contextlib.ExitStack() as stack:
            silent = _opened(stack, os.devnull, os.O_RDWR)
            given = {**dict.fromkeys(range(_TUN_FD), silent), _TUN_FD: tun, _FOLDER_FD: folder}
            actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in given.items()]
            environment = {**os.environ, "WG_TUN_FD": str(_TUN_FD), "LOG_LEVEL": "silent"}
            command = [self._binary, "-f", name]
            process = os.posix_spawn(self._binary, command, environment, file_actions=actions, setsid=True)
        prefer(process)
        ending = os.pidfd_open(process)
        self._children.add(process)
        return ending

    def _await_socket(self, name: str, process: int) -> None:
        """Until the process listens. It announces nothing, so its socket is tried every 2 ms, 5 s at most."""
        limit = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < limit:
            with contextlib.suppress(OSError):
                uapi.connect(self.socket_of(name)).close()
                return
            if uapi.ended(process, _PAUSE):
                raise NsmError(Code.INTERNAL, "wireguard-go ended at once: wireguard-go -f NAME shows why")
        raise NsmError(Code.DEADLINE_EXCEEDED, f"wireguard-go did not listen within {_START_TIMEOUT:g} s")

    @functools.cached_property
    def _is_plain(self) -> bool:
        assert self._binary is not None
        shown = subprocess.run(
            [self._binary, "--version"], capture_output=True, text=True, check=False
        ).stdout
        version = _VERSION.search(shown)
        return version is None or int(version[1]) >= _PLAIN_SINCE

    def _own_mounts(self) -> None:
        for folder in (self._shown, self._tunnels):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            (self._shown / "wireguard").symlink_to(f"/proc/self/fd/{_FOLDER_FD}")
        run = os.path.realpath("/var/run")
        syscalls.unshare_mounts()
        mounts = Path("/proc/thread-self/mountinfo").read_text(errors="surrogateescape")
        for place in _NSFS_MOUNT.findall(mounts):  # these copies would keep deleted namespaces alive
            with contextlib.suppress(OSError):
                syscalls.unmount(place)
        syscalls.bind_mount(str(self._shown.resolve()), run)


def refusal(binary: str | None, tun: Path = TUN) -> str:
    """Why a program found at ``binary`` cannot have TUN devices by ``tun``, and what to do; empty if it can."""
    if binary is None:
        return "wireguard-go is not installed (Debian: apt-get install wireguard-go)"
    if not tun.exists():
        return f"wireguard-go needs {tun}, which this machine does not have (as root: modprobe tun)"
    if not os.access(tun, os.R_OK | os.W_OK):
        mode = stat.S_IMODE(tun.stat().st_mode)
        return (
            f"wireguard-go needs {tun}, which this user may not open (mode {mode:04o}; as root: chmod 0666 {tun},"
            ' and to keep it so the udev rule KERNEL=="tun", MODE="0666")'
        )
    return ""


def require_free_port(port: int) -> None:
    """NsmError RESOURCE_EXHAUSTED if someone has that UDP port at the node."""
    for family in (socket.AF_INET6, socket.AF_INET):
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise port_taken(port) from error
                raise


def _opened(stack: contextlib.ExitStack, path: str | Path, flags: int) -> int:
    """A descriptor beyond those a process is given: none of them may be overwritten before it is copied."""
    first = os.open(path, flags | os.O_CLOEXEC)
    try:
        fd = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _FOLDER_FD + 1)
    finally:
        os.close(first)
    stack.callback(os.close, fd)
    return fd
