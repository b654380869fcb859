"""The lab for a user who is not root: the same commands inside user, network and mount namespaces of their own.

The command starts itself again through ``unshare -Urnm`` (util-linux); inside, a fresh tmpfs on /run gives namespaces,
sockets and state a place, and everything is gone with the last process.
"""

import os
import shutil
import sys
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab.kernel import MS_PRIVATE, MS_REC, mount

INSIDE: Final = "NSM_LAB_ROOTLESS"
_HINT: Final = "run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"


def is_inside() -> bool:
    """Whether this process is the one that was started again."""
    return os.environ.get(INSIDE) == "1"


def enter() -> None:
    """Return at once as root; otherwise become root of new namespaces by starting again."""
    if is_inside():
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
        return
    if os.geteuid() == 0:
        return
    program = shutil.which("unshare")
    if program is None:
        raise LabError("unshare was not found", hint="install util-linux, or run it as root")
    again = [program, "-Urnm", "--", sys.executable, "-m", "nsmctl", *sys.argv[1:]]
    try:
        os.execve(program, again, {**os.environ, INSIDE: "1"})  # noqa: S606 - found on PATH above
    except OSError as error:
        raise LabError(f"could not enter a user namespace: {error}", hint=_HINT) from error


def require_root(command: str) -> None:
    """For what outlives the command: a rootless lab would end with it."""
    if os.geteuid() != 0:
        raise LabError(
            f"nsmctl {command} needs root, because the lab outlives the command",
            hint="use sudo, or nsmctl demo and nsmctl run --lab, which need no root",
        )
