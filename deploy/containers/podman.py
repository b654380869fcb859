"""Podman, as it is called on any machine: with systemd and cgroup v2 or without."""

import json
import resource
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab.processes import Process, start_time

LABEL: Final = "org.nsm.demo"
"""Containers of a demonstration carry it; its value is the demonstration's name."""

PATIENCE: Final = 120.0
"""Seconds for any call but a build or a pull."""

_CAPABILITIES: Final = {
    "NET_BROADCAST": 11,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "IPC_LOCK": 14,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
}
"""Bits of capabilities(7) by name without ``CAP_``, for those that an image may list."""


@dataclass(frozen=True, slots=True)
class Order:
    """One container to be: ``network`` as podman has it; ``capabilities`` are all it gets."""

    name: str
    image: str
    command: Sequence[str]
    network: str
    capabilities: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Iterable[str] = ()
    options: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """Of ``podman run``."""
        words = ["--name", self.name, "--network", self.network, "--cap-drop", "all", *self.options]
        for capability in self.capabilities:
            words += ["--cap-add", capability]
        for name, value in self.env.items():
            words += ["--env", f"{name}={value}"]
        for mount in self.mounts:
            words += ["--volume", mount]
        program, *rest = self.command
        return [*words, "--entrypoint", program, self.image, *rest]


class Podman:
    """The command ``podman`` with what this machine needs; LabError says what is missing or what it said."""

    def __init__(self, demo: str) -> None:
        self.demo = demo
        if shutil.which("podman") is None:
            raise LabError(
                "podman was not found", hint="apt-get install -y --no-install-recommends podman runc"
            )
        self._globals = _global_options()

    def call(self, *words: str, timeout: float = PATIENCE) -> str:
        """Run it and return what it prints."""
        try:
            done = subprocess.run(
                ["podman", *self._globals, *words],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, text=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise LabError(f"podman {words[0]} did not end within {timeout:.0f} s") from error
        if done.returncode != 0:
            raise LabError(f"podman {words[0]} failed: {_end(done.stderr)}")
        return done.stdout.strip()

    def start(self, order: Order, log: Path) -> Process:
        """Start a container; its output is appended to ``log`` as it is."""
        words = ["run", "--detach", "--label", f"{LABEL}={self.demo}", "--log-driver", "passthrough"]
        words += ["--pull", "never", "--no-healthcheck", *limits(), *order.arguments()]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            done = subprocess.run(
                ["podman", *self._globals, *words],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE, check=False,
            )  # fmt: skip
        if done.returncode != 0:
            raise LabError(f"container {order.name} did not start: {_end(log.read_text(errors='replace'))}")
        pid = int(self.call("inspect", "--format", "{{.State.Pid}}", order.name))
        started = start_time(pid)
        return Process(order.name, pid, -1 if started is None else started, str(log))

    def run(self, order: Order) -> str:
        """Run a container to its end, its output."""
        return self.call("run", "--rm", "--pull", "never", "--no-healthcheck", *limits(), *order.arguments())

    def execute(self, name: str, command: Sequence[str]) -> str:
        """Run a command in a container; LabError with what it said if it fails."""
        return self.call("exec", name, *command)

    def stop(self, name: str, *, grace: int = 30) -> None:
        """SIGTERM and, after ``grace`` seconds, SIGKILL; then the container goes."""
        self.call("stop", "--time", str(grace), name)
        self.call("rm", name)

    def remove_all(self) -> None:
        """Every container of this demonstration, whatever it does."""
        names = self.containers()
        if names:
            self.call("rm", "--force", "--time", "0", *names)

    def containers(self) -> list[str]:
        """Names of the demonstration's containers, also of ended ones."""
        return self.call(
            "ps", "--all", "--filter", f"label={LABEL}={self.demo}", "--format", "{{.Names}}"
        ).split()

    def has_image(self, image: str) -> bool:
        """Whether the image is here."""
        try:
            self.call("image", "exists", image)
        except LabError:
            return False
        return True

    def health_check(self, image: str) -> list[str]:
        """The command of the image's health check; podman itself needs systemd to run it by the clock."""
        found = json.loads(self.call("image", "inspect", image))[0]
        kind, *command = (
            found.get("Healthcheck") or found["Config"].get("Healthcheck") or {"Test": ["NONE"]}
        )["Test"]
        if kind != "CMD":
            raise LabError(f"image {image} has no health check by command, but {kind}")
        return [str(word) for word in command]


def capabilities_of(process: Process) -> set[str]:
    """What the kernel says that a process may, by name; a bit without a name here by its number."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(next(line for line in text.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    names = {bit: name for name, bit in _CAPABILITIES.items()}
    return {names.get(bit, str(bit)) for bit in range(64) if mask >> bit & 1}


def _global_options() -> list[str]:
    """Podman's defaults ask for systemd, and its default runtime for cgroup v2."""
    options = []
    if not Path("/run/systemd/system").is_dir():
        options += ["--cgroup-manager", "cgroupfs"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        runtime = shutil.which("runc") or shutil.which("runc", path="/usr/sbin:/sbin:/usr/local/sbin")
        if runtime is None:
            raise LabError("cgroup v1 needs runc", hint="apt-get install -y --no-install-recommends runc")
        options += ["--runtime", runtime]
    return options


def limits() -> list[str]:
    """Enough, and no more than we have ourselves: a sandbox may not raise limits."""
    words = []
    for name, number, enough in (
        ("nofile", resource.RLIMIT_NOFILE, 16384),
        ("nproc", resource.RLIMIT_NPROC, 32768),
    ):
        hard = resource.getrlimit(number)[1]
        value = enough if hard == resource.RLIM_INFINITY else min(hard, enough)
        words += ["--ulimit", f"{name}={value}:{value}"]
    return words


def _end(text: str) -> str:
    return "\n".join(line[:400] for line in text.strip().splitlines()[-6:]) or "it said nothing"
