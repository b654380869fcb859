"""A VPP of our own: started in a session of its own, adopted by the next agent, stopped only on request."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from forwarder_vpp.dataplane.priority import prefer
from nsm.model.errors import Code, NsmError

from .profile import find_vpp, preload, render

_log = structlog.get_logger(__name__)

_START_FIELD = 19  # of /proc/<pid>/stat behind the command's closing bracket: start time in clock ticks
_POLL = 0.02
_LONGEST_PAUSE = 30.0
_LOG_TAIL = 2000


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one of the same number."""

    pid: int
    started: int
    exe: str

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return identify(self.pid) == self


def identify(pid: int) -> ProcessId | None:
    """Who runs under that number now; ``None`` for nobody or a zombie."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        exe = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else ProcessId(pid, int(rest[_START_FIELD - 1]), exe)


class VppProcess:
    """One supervised VPP; ``runtime_dir`` holds its sockets, log and identity, and makes it the same VPP.

    ``ensure`` starts it or adopts the one that runs; from then on it is started again when it dies.
    ``release`` leaves it running, ``stop`` ends it.
    """

    def __init__(
        self,
        runtime_dir: Path,
        *,
        profile: str = "lab",
        values: Mapping[str, str] | None = None,
        binary: str | None = None,
    ) -> None:
        self.runtime_dir = runtime_dir
        self.api_socket = runtime_dir / "api.sock"
        self.stats_socket = runtime_dir / "stats.sock"
        self.starts = 0
        self._profile = profile
        self._values = values or {}
        self._binary = binary
        self._process: ProcessId | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """VPP's process id, 0 while there is none."""
        return self._process.pid if self._process else 0

    async def ensure(self, timeout: float = 20.0) -> Path:  # noqa: ASYNC109  # the whole wait, not one call
        """Adopt or start VPP and wait until its API socket answers; the socket's path.

        NsmError: FAILED_PRECONDITION without a binary, UNAVAILABLE (with the end of the log) if it dies or
        does not answer within ``timeout`` seconds.
        """
        self.begin()
        try:
            async with asyncio.timeout(timeout):
                await self._ready()
        except TimeoutError:
            message = f"VPP (process {self.pid}) did not answer on {self.api_socket} within {timeout:g} s"
            raise NsmError(Code.UNAVAILABLE, message) from None
        self._supervisor = asyncio.create_task(self._supervise(), name="vpp-process")
        return self.api_socket

    def begin(self) -> None:
        """Adopt or start VPP, in the calling thread's network namespace; ``ensure`` waits for it."""
        if self._process is not None and self._process.alive():
            return
        self._process = self._running()
        if self._process is not None:
            _log.info("adopted VPP", pid=self.pid, runtime_dir=str(self.runtime_dir))
        else:
            self._spawn()

    async def release(self) -> None:
        """Stop watching; VPP goes on."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None

    async def stop(self, grace: float = 5.0) -> None:
        """End VPP: SIGTERM, after ``grace`` seconds SIGKILL; its sockets and identity go too."""
        await self.release()
        process = self._process or self._running()
        if process is not None and process.alive():
            os.kill(process.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace):
                    await _exited(process)
            except TimeoutError:
                os.kill(process.pid, signal.SIGKILL)
                await _exited(process)
        self._process = None
        for path in (self._identity_file, self.api_socket, self.stats_socket, self.runtime_dir / "cli.sock"):
            path.unlink(missing_ok=True)

    @property
    def _identity_file(self) -> Path:
        return self.runtime_dir / "vpp.pid"

    def _running(self) -> ProcessId | None:
        try:
            known = json.loads(self._identity_file.read_text())
            process = ProcessId(int(known["pid"]), int(known["started"]), str(known["exe"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return process if process.alive() else None

    def _spawn(self) -> None:
        binary = self._binary or find_vpp()
        self.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        configuration = self.runtime_dir / "startup.conf"
        configuration.write_text(render(self._profile, self.runtime_dir, self._values))
        self.api_socket.unlink(missing_ok=True)
        log = str(self.runtime_dir / "vpp.out")
        pid = os.posix_spawn(
            binary,
            [binary, "-c", str(configuration)],
            _environment(),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        prefer(pid)
        self.starts += 1
        self._process = identify(pid)
        if self._process is None:
            raise self._died(pid)
        identity = {"pid": pid, "started": self._process.started, "exe": self._process.exe}
        self._identity_file.write_text(json.dumps(identity))
        _log.info("started VPP", pid=pid, binary=binary, profile=self._profile)

    async def _ready(self) -> None:
        """Until the API socket accepts."""
        while True:
            process = self._process
            if process is None or not process.alive():
                raise self._died(self.pid)
            try:
                _, writer = await asyncio.open_unix_connection(str(self.api_socket))
            except OSError:
                await asyncio.sleep(_POLL)
                continue
            writer.transport.abort()
            return

    def _died(self, pid: int) -> NsmError:
        _reap(pid)
        try:
            tail = (self.runtime_dir / "vpp.out").read_text(errors="replace")[-_LOG_TAIL:]
        except OSError:
            tail = ""
        return NsmError(Code.UNAVAILABLE, f"VPP (process {pid}) died at start: {tail.strip() or 'no output'}")

    async def _supervise(self) -> None:
        pause = 0.1
        while self._process is not None:
            await _exited(self._process)
            _log.error("VPP died", pid=self._process.pid, again_in=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            try:
                self._spawn()
            except (NsmError, OSError) as error:
                _log.error("VPP does not start", reason=str(error))


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "HOME") if name in os.environ}
    library = preload()
    if library is None:
        _log.warning(
            "VPP stops for ever when 16 links have packets at one moment: compile vpp-config/fair_epoll.c"
        )
        return kept
    return {**kept, "LD_PRELOAD": str(library)}


async def _exited(process: ProcessId) -> None:
    """Until the process has ended, our child or not."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    try:
        if process.alive():
            loop.add_reader(descriptor, gone.set)
            await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    _reap(process.pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
