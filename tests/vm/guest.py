"""A guest under QEMU with Debian's kernel; its root is the host's file system, its writes go nowhere."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from forwarder_vpp.dataplane.priority import prefer
from tests.vm import initrd

QEMU: Final = "qemu-system-x86_64"
MACHINE_DIRECTORY: Final = "NSM_VM_DIR"
PREPARE: Final = "scripts/vm-guest"
BOOT_TIMEOUT: Final = 300.0
"""Seconds; 10 on an idle machine."""

PATIENCE: Final = 240.0
"""Seconds without a sign of life; a test that starts a VPP takes 20 on an idle machine."""

_ROOT: Final = Path(__file__).resolve().parents[2]
_PYTEST: Final = (
    *(sys.executable, "-m", "pytest", "-c", "tests/vm/guest.ini", "--rootdir=.", "--confcutdir=tests/netns"),
    *("-rs", "-v", "--durations=3"),
)
_LEAN: Final = dict.fromkeys(
    ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"), "1"
)
_CONSOLE: Final = "console=ttyS0 rdinit=/init panic=-1 quiet"
_FAST: Final = "nokaslr nopti mitigations=off cryptomgr.notests audit=0 apparmor=0"


@dataclass(frozen=True, slots=True)
class Kernel:
    """What ``scripts/vm-guest`` has made: an image to boot and the folder ``lib/modules`` of its package."""

    image: Path
    modules: Path

    @property
    def own(self) -> Path:
        """The modules of this very kernel."""
        (own,) = (each for each in self.modules.iterdir() if (each / "modules.dep").exists())
        return own


def missing() -> str:
    """Why no guest can be started, in capitals; empty if one can."""
    if shutil.which(QEMU) is None or not Path("/bin/busybox").exists():
        return f"NO QEMU OR BUSYBOX: {PREPARE} installs them"
    if find_kernel() is None:
        return f"NO KERNEL FOR THE GUEST in {directory()}: {PREPARE} fetches Debian's"
    return ""


def directory() -> Path:
    """Where the guest's kernel is kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(MACHINE_DIRECTORY) or Path(cache) / "nsm-vpp" / "vm")


def find_kernel() -> Kernel | None:
    """The kernel in ``directory``."""
    found = Kernel(directory() / "vmlinux", directory() / "lib" / "modules")
    is_whole = found.image.exists() and any(found.modules.glob("*/modules.dep"))
    return found if is_whole else None


@dataclass(frozen=True, slots=True)
class Done:
    """How a command in the guest ended; ``out`` is what it wrote to both its outputs."""

    code: int
    out: str


class Guest:
    """A running guest; between ``with`` and its end. RuntimeError with the console if it does not boot."""

    def __init__(self, work: Path, kernel: Kernel, *, memory_mib: int = 1024, cpus: int = 2) -> None:
        self._work = work
        self._kernel = kernel
        self._size = (memory_mib, cpus)
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, self._port = socket.socketpair()
        self._answers: IO[bytes] | None = None
        self._number = 0
        self.release = ""

    def __enter__(self) -> Self:
        initrd.write(self._work / "initrd", self._kernel.own)
        with self._port, (self._work / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(self._port.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._port.fileno()],
                start_new_session=True,
            )
        prefer(
            self._process.pid
        )  # its clock goes on while it waits for its turn, and what it runs has deadlines
        self._socket.settimeout(BOOT_TIMEOUT)
        self._answers = self._socket.makefile("rb")
        try:
            self.release = self._answer(0).out
        except (OSError, RuntimeError) as error:
            self._end()
            raise RuntimeError(f"the guest did not boot: {error}\n{self.console()}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, *argv: str, patience: float = PATIENCE, env: Mapping[str, str] | None = None) -> Done:
        """A command in the guest, in the project's folder; code 124 if it says nothing for ``patience`` seconds.

        However long it takes: an emulated machine beside others may be ten times slower than on its own.
        """
        self._number += 1
        order = {"id": self._number, "argv": argv, "patience": patience, "cwd": str(_ROOT), "env": env or {}}
        self._socket.settimeout(patience + 30)
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        return self._answer(self._number)

    def pytest(self, *cases: str) -> Done:
        """Tests of this project in the guest; a line for each as it ends."""
        return self.run(*_PYTEST, *cases, env=_LEAN)

    def console(self) -> str:
        """The end of what the kernel and QEMU have said."""
        names = ("console.log", "qemu.log")
        texts = [
            (self._work / name).read_text(errors="replace") for name in names if (self._work / name).exists()
        ]
        return "\n".join(texts)[-3000:]

    def _answer(self, number: int) -> Done:
        assert self._answers is not None
        for line in self._answers:
            reply: dict[str, Any] = json.loads(line)
            if reply["id"] == number and "rc" in reply:
                return Done(reply["rc"], reply["out"])
        raise RuntimeError("it ended")

    def _command(self, port: int) -> Sequence[str]:
        memory, cpus = self._size
        here = _ROOT / "tests" / "vm"
        words = f"nsm.boot={here}/boot.sh nsm.agent={here}/agent.py nsm.modules={self._kernel.modules}"
        return [
            *(QEMU, "-machine", "q35", "-accel", accelerator(), "-cpu", "max"),
            *("-m", str(memory), "-smp", str(cpus)),
            *("-display", "none", "-nodefaults", "-no-reboot"),
            *("-serial", f"file:{self._work}/console.log"),
            *("-kernel", str(self._kernel.image), "-initrd", f"{self._work}/initrd"),
            *("-append", f"{_CONSOLE} {_FAST} {words}"),
            *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={port}"),
            *("-device", "virtserialport,chardev=agent,name=agent,nr=1"),
        ]

    def _end(self) -> None:
        if self._answers is not None:
            self._answers.close()
        self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def accelerator() -> str:
    """KVM only where it is the processor's own (a paravirtual one runs no stock kernel), else emulation."""
    own = any(Path("/sys/module", each).exists() for each in ("kvm_intel", "kvm_amd"))
    return "kvm" if own and os.access("/dev/kvm", os.R_OK | os.W_OK) else "tcg,thread=multi"
