"""The lab for a user who is not root: the same commands inside user, network and mount namespaces of their own.

The command starts itself again through ``unshare -Urnm`` (util-linux); inside, a fresh tmpfs on /run gives namespaces,
sockets and state a place, and everything is gone with the last process. The root of a user namespace (somebody's
``unshare -Ur``, a container without privileges) is no more than such a user, and gets the same.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab.kernel import MS_PRIVATE, MS_REC, mount

INSIDE: Final = "NSM_LAB_ROOTLESS"
_UNSHARE: Final = ("-Urnm", "--")
_WHOLE: Final = ["0", "0", "4294967295"]
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where nft is; not on the PATH of a Debian user."""

_SYSCTLS: Final = {
    "kernel/unprivileged_userns_clone": ("0", "1"),
    "user/max_user_namespaces": ("0", "10000"),
    "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
}
"""What keeps a user from namespaces (Debian, every Linux, Ubuntu): the value that does, and one that does not."""


def is_inside() -> bool:
    """Whether this process is the one that was started again."""
    return os.environ.get(INSIDE) == "1"


def is_root() -> bool:
    """Whether we are the machine's root, and not only that of a user namespace."""
    return os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == _WHOLE


def enter() -> None:
    """Return at once as root; otherwise become root of new namespaces by starting again."""
    if is_inside():
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
        return
    if is_root():
        return
    program = shutil.which("unshare")
    if program is None:
        raise LabError("unshare was not found", hint="install util-linux, or run it as root")
    _try(program)
    environment = {**os.environ, INSIDE: "1", "PATH": f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"}
    again = [program, *_UNSHARE, sys.executable, "-m", "nsmctl", *sys.argv[1:]]
    os.execve(program, again, environment)  # noqa: S606 - found on PATH above


def _try(program: str) -> None:
    """LabError where this user may make no namespaces: whoever starts again can say nothing any more."""
    done = subprocess.run([program, *_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().removeprefix("unshare: ")
        raise LabError(f"could not enter a user namespace: {reason}", hint=remedy())


def remedy(sysctls: Path = Path("/proc/sys")) -> str:
    """What allows a user namespaces on this machine: the settings that forbid them, else where else to look."""
    commands = []
    for name, (closed, opened) in _SYSCTLS.items():
        file = sysctls / name
        if file.exists() and file.read_text().strip() == closed:
            commands.append(f"sysctl {name.replace('/', '.')}={opened}")
    if commands:
        return f"run it as root, or allow user namespaces; as root: {' '.join(commands)}"
    return "run it as root; a container needs a seccomp profile that allows unshare, and CAP_SYS_ADMIN"


def require_root(command: str) -> None:
    """For what outlives the command: a rootless lab would end with it."""
    if os.geteuid() != 0 or not os.access("/run", os.W_OK):
        raise LabError(
            f"nsmctl {command} needs root, because the lab outlives the command",
            hint="use sudo, or nsmctl demo, which needs no root",
        )
