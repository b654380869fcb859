"""The VPP that is installed on this machine, in a container built from nothing but the base image.

Its files are mounted read-only where they are here: the folder it was installed to, and the libraries of the
distribution that the base image does not have.
"""

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from deploy.containers.mesh import Images
from deploy.containers.podman import Order, Podman
from forwarder_vpp.dataplane.vpp.profile import find_vpp, preload, profile_path
from nsmctl.errors import LabError

_SYSTEM: Final = {Path("/"), Path("/usr"), Path("/usr/local")}
_LIBRARY: Final = re.compile(r"(?:=> )?(/\S+) \(0x")
_MISSING: Final = re.compile(r"(\S+) => not found")
_PLUGIN: Final = re.compile(r"^\s*plugin (\S+\.so) \{ enable \}", re.MULTILINE)


def images(podman: Podman, base: str, agent: str, profile: str) -> Images:
    """VPP in ``base``: the binary and the volumes with which it runs there. LabError if something of it is not here."""
    binary = Path(find_vpp())
    prefix = binary.parents[1]
    plugins = _plugins(binary, profile)
    # files of a package lie among everybody's
    own = {binary, binary.with_name("vppctl"), plugins[0].parent} if prefix in _SYSTEM else {prefix}
    needed = {Path(name) for file in (binary, *plugins) for name in _libraries(file)}
    foreign = sorted(str(file) for file in needed if not any(file.is_relative_to(one) for one in own))
    lacking = _lacking(podman, base, foreign)
    library = preload()
    if library is None:
        raise LabError("vpp-config/fair_epoll.so was not compiled", hint="make vpp-config/fair_epoll.so")
    files = (*sorted(map(str, own)), *lacking, str(library))
    mounts = [f"{Path(file).resolve()}:{file}:ro" for file in files]
    return Images(base, agent, base, str(binary), mounts, {"LD_PRELOAD": str(library)})


def _plugins(binary: Path, profile: str) -> Sequence[Path]:
    """The plugins that the profile asks for."""
    wanted = _PLUGIN.findall(profile_path(profile).read_text())
    folders = sorted(binary.parents[1].glob("lib*/**/vpp_plugins"))
    found = [folder / name for folder in folders[:1] for name in wanted if (folder / name).exists()]
    if len(found) != len(wanted) or not found:
        raise LabError(
            f"the VPP at {binary} lacks plugins of profile {profile}", hint="install vpp-plugin-core"
        )
    return found


def _libraries(file: Path) -> Iterable[str]:
    done = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=False, timeout=60)
    missing = _MISSING.findall(done.stdout)
    if done.returncode != 0 or missing:
        raise LabError(f"{file} cannot be loaded here: {' '.join(missing) or done.stderr.strip()}")
    return _LIBRARY.findall(done.stdout)


def _lacking(podman: Podman, base: str, files: Sequence[str]) -> list[str]:
    """Those that the image does not have."""
    question = 'for file; do test -e "$file" || echo "$file"; done'
    order = Order("nsm-demo-look", base, ("/bin/sh", "-c", question, "sh", *files), "none")
    return podman.run(order).split()
