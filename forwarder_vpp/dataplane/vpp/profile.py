"""Start-up configurations of VPP: a profile from ``vpp-config/`` with the instance's values filled in."""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

from nsm.model.errors import Code, NsmError

_RING_NAMES = ("workload", "expedited", "uplink")
_RINGS = re.compile(r"^# rings: (.*)$", re.MULTILINE)
_RING = re.compile(rf"({'|'.join(_RING_NAMES)}) (\d+)x(\d+)")
_ALIGNMENT = 16  # TPACKET_ALIGNMENT
_PAGE = 4096
_DEFAULTS: Mapping[str, str] = {"buffers": "16384", "cpu": "", "pci_address": ""}


def find_vpp() -> str:
    """The ``vpp`` binary: ``VPP_BINARY``, else on PATH. NsmError FAILED_PRECONDITION if there is none."""
    wanted = os.environ.get("VPP_BINARY") or "vpp"
    found = shutil.which(wanted)
    if found is None:
        message = f"no executable {wanted!r}: install VPP, put it on PATH or name it in VPP_BINARY"
        raise NsmError(Code.FAILED_PRECONDITION, message)
    return os.path.realpath(found)


def _folder() -> Path:
    folder = os.environ.get("NSM_VPP_CONFIG_DIR")
    return Path(folder) if folder else Path(__file__).parents[3] / "vpp-config"


def preload() -> Path | None:
    """The library that keeps VPP answering when 16 links have packets at once; ``None`` if it was not compiled."""
    library = _folder() / "fair_epoll.so"
    return library if library.exists() else None


def profile_path(profile: str) -> Path:
    """The template of a profile by name, or a template of the user's by path."""
    return Path(profile) if "/" in profile else _folder() / f"{profile}.conf"


def rings(profile: str) -> Mapping[str, tuple[int, int]]:
    """Sizes the profile gives its AF_PACKET rings, (bytes of a frame, frames) by name; absent = the agent's own.

    One comment line, ``# rings: workload 67584x62, expedited 67584x30, uplink 10240x1638``.
    NsmError INVALID_ARGUMENT: an unknown name, or a size the kernel would refuse.
    """
    line = _RINGS.search(_text(profile))
    found: dict[str, tuple[int, int]] = {}
    for part in line[1].split(",") if line else ():
        size = _RING.fullmatch(part.strip())
        frame, frames = (int(size[2]), int(size[3])) if size else (0, 0)
        if size is None or not frames or frame % _ALIGNMENT or frame * frames % _PAGE:
            message = (
                f"profile {profile!r}: expected {' or '.join(_RING_NAMES)} and FRAMExFRAMES, frames of a multiple of"
                f" {_ALIGNMENT} bytes that make whole pages together, got {part.strip()!r}"
            )
            raise NsmError(Code.INVALID_ARGUMENT, message, field="profile")
        found[size[1]] = (frame, frames)
    return found


def render(profile: str, runtime_dir: Path, values: Mapping[str, str]) -> str:
    """The configuration for an instance that lives in ``runtime_dir``.

    ``values`` may set ``buffers``, ``cpu`` and ``pci_address``.
    NsmError INVALID_ARGUMENT: unknown profile, or one that asks for a value that is not there.
    """
    text = _text(profile)
    own = {"runtime_dir": str(runtime_dir), "prefix": segment_prefix(runtime_dir)}
    try:
        return Template(text).substitute({**_DEFAULTS, **values, **own})
    except (KeyError, ValueError) as error:
        message = f"profile {profile!r} asks for {error}, which is not set"
        raise NsmError(Code.INVALID_ARGUMENT, message, field="profile") from error


def _text(profile: str) -> str:
    path = profile_path(profile)
    try:
        return path.read_text()
    except OSError as error:
        message = f"no profile {profile!r} ({path}): {error.strerror}"
        raise NsmError(Code.INVALID_ARGUMENT, message, field="profile") from error


def segment_prefix(runtime_dir: Path) -> str:
    """A name for the instance's shared memory, one for each runtime folder."""
    return "nsm" + hashlib.sha256(str(runtime_dir).encode()).hexdigest()[:8]
