"""wireguard-go: WireGuard in user space, one process a tunnel, that outlives the agent and is adopted by the next.

The device belongs into the workload's namespace, the UDP socket into the node's. So the TUN device is made in the
node and moved (a descriptor opened inside would keep a dead workload's namespace alive), and only then the process
is started with its descriptor. At that moment a second device of the same passing name stands in the node: the
process looks up its device's index there, and must not take the move for an interface that went down (it would
notice that it is up only a second later). The process's configuration sockets are in ``run_dir``: it is started by
a thread whose own mounts show that folder at /run, which works without privileges too.
"""

import contextlib
import errno
import fcntl
import os
import re
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from forwarder_vpp.dataplane.linux import uapi, udp_buffers
from forwarder_vpp.dataplane.linux.inotify_room import InotifyRoom
from forwarder_vpp.dataplane.linux.objects.wireguard_device import port_taken
from forwarder_vpp.dataplane.netlink import syscalls
from forwarder_vpp.dataplane.priority import prefer
from nsm.model.errors import Code, NsmError

PROGRAM: Final = "wireguard-go"

_LOG: Final = structlog.get_logger(__name__)
_TUN: Final = Path("/dev/net/tun")
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_IFREQ: Final = struct.Struct("=16sH22x")
_PLAIN_SINCE: Final = 20230223
"""Versions before this one speak TUN with a packet information header."""
_START_TIMEOUT: Final = 5.0
_CLOSERS: Final = 8
"""The kernel takes 16 ms to close a TUN device, but several at a time in little more."""
_TUN_FD: Final = 3
_VERSION: Final = re.compile(r"v?\d+\.\d+\.(\d{8})")
_NSFS_MOUNT: Final = re.compile(r"^\S+ \S+ \S+ net:\[\d+\] (\S+) ", re.MULTILINE)


class WireguardGo:
    """Starts, finds and ends the processes of one forwarder; every method blocks."""

    def __init__(self, run_dir: Path, room: InotifyRoom | None = None) -> None:
        self._run = run_dir
        self._sockets = run_dir / "wireguard"
        self._binary = shutil.which(PROGRAM)
        self._flags: int | None = None
        self._children: set[int] = set()
        self._room = room or InotifyRoom()
        self._room.leave()  # what a killed agent left
        self._launcher = ThreadPoolExecutor(1, "wireguard-go", initializer=self._own_mounts)
        self._closers = ThreadPoolExecutor(_CLOSERS, "wireguard-go-close")
        self._closing: dict[str, Future[None]] = {}
        self.asking = ThreadPoolExecutor(1, "wireguard-go-ask")
        """Where the processes are asked: those who wait for an answer must not keep others from being started."""

    def refusal(self) -> str:
        """Why there can be no such process here, and what to do; empty if there can."""
        return refusal(self._binary)

    def close(self) -> None:
        """Let go; the processes go on."""
        self._launcher.shutdown()
        self._closers.shutdown()
        self.asking.shutdown()
        self._room.leave()
        self._reap()

    def socket_of(self, name: str) -> Path:
        """Where the process of tunnel ``name`` is configured."""
        return self._sockets / f"{name}.sock"

    def names(self) -> list[str]:
        """The tunnels that have a socket, whether or not anyone listens."""
        return sorted(path.stem for path in self._sockets.glob("*.sock"))

    def start(self, name: str, move: Callable[[], None]) -> None:
        """A process for TUN device ``name``, which ``move`` takes to its namespace and up. Nothing stays on failure."""
        self._reap()
        self._room.take()
        flags = self._tun_flags()
        if closing := self._closing.get(name):
            closing.result()  # the name is free only then
        with contextlib.ExitStack() as stack:
            tun = _tun(name, flags)
            stack.callback(os.close, tun)
            move()
            stack.callback(self._close_behind, name, _tun(name, flags))
            process = self._launcher.submit(self._spawn, name, tun).result()
            try:
                self._await_socket(name, process)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                raise

    def _close_behind(self, name: str, stand_in: int) -> None:
        """Off the way of a Request, and of the other tunnels of this thread."""
        for other, closing in list(self._closing.items()):  # at once: another thread may add
            if closing.done():
                self._closing.pop(other, None)
        self._closing[name] = self._closers.submit(os.close, stand_in)

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
        self._reap()

    def _reap(self) -> None:
        for process in tuple(self._children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(process, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(process)

    def _spawn(self, name: str, tun: int) -> int:
        assert self._binary is not None
        silent = os.open(os.devnull, os.O_RDWR)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, silent, fd) for fd in range(_TUN_FD)]
            actions.append((os.POSIX_SPAWN_DUP2, tun, _TUN_FD))
            environment = {**os.environ, "WG_TUN_FD": str(_TUN_FD), "LOG_LEVEL": "silent"}
            command = [self._binary, "-f", name]
            process = os.posix_spawn(self._binary, command, environment, file_actions=actions, setsid=True)
        finally:
            os.close(silent)
        prefer(process)
        self._children.add(process)
        return process

    def _await_socket(self, name: str, process: int) -> None:
        """Until the process listens. It announces nothing, so its socket is tried every 2 ms, 5 s at most."""
        ending = os.pidfd_open(process)
        try:
            exited = select.poll()
            exited.register(ending, select.POLLIN)
            limit = time.monotonic() + _START_TIMEOUT
            while time.monotonic() < limit:
                with contextlib.suppress(OSError):
                    uapi.connect(self.socket_of(name)).close()
                    return
                if exited.poll(2):
                    raise NsmError(
                        Code.INTERNAL, "wireguard-go ended at once: wireguard-go -f NAME shows why"
                    )
        finally:
            os.close(ending)
        raise NsmError(Code.DEADLINE_EXCEEDED, f"wireguard-go did not listen within {_START_TIMEOUT:g} s")

    def _tun_flags(self) -> int:
        if self._flags is None:
            assert self._binary is not None
            shown = subprocess.run(
                [self._binary, "--version"], capture_output=True, text=True, check=False
            ).stdout
            version = _VERSION.search(shown)
            is_plain = version is None or int(version[1]) >= _PLAIN_SINCE
            self._flags = _IFF_TUN | (_IFF_NO_PI | _IFF_VNET_HDR if is_plain else 0)
        return self._flags

    def _own_mounts(self) -> None:
        self._sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        run = os.path.realpath("/var/run")
        syscalls.unshare_mounts()
        mounts = Path("/proc/thread-self/mountinfo").read_text(errors="surrogateescape")
        for place in _NSFS_MOUNT.findall(mounts):  # these copies would keep deleted namespaces alive
            with contextlib.suppress(OSError):
                syscalls.unmount(place)
        syscalls.bind_mount(str(self._run.resolve()), run)


def refusal(binary: str | None, tun: Path = _TUN) -> str:
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


def _tun(name: str, flags: int) -> int:
    fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), flags))
    except OSError as error:
        os.close(fd)
        raise NsmError(
            Code.FAILED_PRECONDITION, f"the kernel refused a TUN device: {error.strerror}"
        ) from error
    return fd
