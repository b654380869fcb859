"""An initramfs that takes the host's file system, read-only over 9p under an overlay, as the guest's root."""

import lzma
from pathlib import Path
from typing import Final

MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console")
"""What the kernel needs before it can load anything from the host."""

_BUSYBOX: Final = Path("/bin/busybox")
_COMMANDS: Final = ("sh", "mount", "insmod", "cat", "mkdir", "switch_root", "echo")
_DIRECTORY, _PROGRAM, _FILE, _LINK, _CONSOLE = 0o40755, 0o100755, 0o100644, 0o120777, 0o20600
_INIT: Final = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /order); do insmod /m/$module || echo "no module $module"; done
for word in $(cat /proc/cmdline); do case $word in nsm.boot=*) boot=${word#*=} ;; esac; done
mkdir -p /host /writes /root
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 host /host
mount -t tmpfs tmpfs /writes
mkdir /writes/upper /writes/work
mount -t overlay -o lowerdir=/host,upperdir=/writes/upper,workdir=/writes/work overlay /root
for each in proc sys dev; do mount --move /$each /root/$each; done
mkdir -p /root/run
mount -t tmpfs tmpfs /root/run
exec switch_root /root /bin/sh "$boot"
"""


def write(target: Path, modules: Path) -> None:
    """The archive; ``modules`` is the folder of one kernel's modules with its modules.dep."""
    archive = _Archive()
    for name in ("bin", "dev", "proc", "sys", "m"):
        archive.add(name, _DIRECTORY)
    archive.add("dev/console", _CONSOLE, device=(5, 1))
    archive.add("bin/busybox", _PROGRAM, _BUSYBOX.read_bytes())
    for name in _COMMANDS:
        archive.add(f"bin/{name}", _LINK, b"busybox")
    order = _in_order(modules)
    for path in order:
        archive.add(f"m/{_plain(path)}", _FILE, _content(path))
    archive.add("order", _FILE, "\n".join(_plain(path) for path in order).encode())
    archive.add("init", _PROGRAM, _INIT.encode())
    archive.add("TRAILER!!!", 0)
    target.write_bytes(archive.data)


class _Archive:
    """A cpio archive in the format ``newc`` (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        self.data += b"070701" + b"".join(b"%08X" % number for number in numbers) + path
        self._pad()
        self.data += content
        self._pad()

    def _pad(self) -> None:
        self.data += bytes(-len(self.data) % 4)


def _in_order(modules: Path) -> list[Path]:
    """The files of ``MODULES`` and of what they need, that first; what is built in has none."""
    files: dict[str, Path] = {}
    needs: dict[str, list[Path]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        files[_name(Path(name))] = modules / name
        needs[_name(Path(name))] = [modules / each for each in reversed(rest.split())]
    built_in = {_name(Path(each)) for each in (modules / "modules.builtin").read_text().split()}
    order: dict[Path, None] = {}
    for wanted in MODULES:
        if wanted not in built_in:
            order.update(dict.fromkeys([*needs[wanted], files[wanted]]))
    return list(order)


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _plain(path: Path) -> str:
    return path.name.removesuffix(".xz")


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
