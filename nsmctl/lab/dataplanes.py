"""Which dataplane a lab uses, and why."""

import os
import shutil
from dataclasses import dataclass
from typing import Literal

from forwarder_vpp.dataplane.linux import wireguard_here
from nsmctl.errors import LabError
from nsmctl.lab import rootless

Choice = Literal["auto", "vpp", "linux"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The dataplane and the reason in one clause."""

    name: str
    reason: str

    def __str__(self) -> str:
        """``vpp: because …``."""
        return f"{self.name} ({self.reason})"


def vpp_binary() -> str | None:
    """``VPP_BINARY``, else ``vpp`` on PATH."""
    return os.environ.get("VPP_BINARY") or shutil.which("vpp")


def choose(wanted: Choice) -> Chosen:
    """The dataplane to use; LabError when the one asked for cannot be had."""
    binary = vpp_binary()
    if wanted == "linux":
        return Chosen("linux", "asked for")
    if rootless.is_inside():
        if wanted == "vpp":
            raise LabError("VPP needs the machine's root", hint="run it as root, or with --dataplane linux")
        return Chosen("linux", "you are not the machine's root, and VPP needs that")
    if binary is None:
        if wanted == "vpp":
            raise LabError("no VPP was found", hint="install FD.io's package vpp, or name it in VPP_BINARY")
        return Chosen(
            "linux", "no vpp on PATH and no VPP_BINARY; install FD.io's package vpp for the VPP dataplane"
        )
    return Chosen("vpp", "asked for" if wanted == "vpp" else f"found {binary}")


def require_payload(dataplane: str, payload: str) -> None:
    """LabError where no tunnel of ``dataplane`` can carry ``payload`` between nodes of this machine."""
    if (dataplane, payload) != ("linux", "IP"):
        return
    reason = wireguard_here.refusal()
    if reason:
        raise LabError(
            f"payload IP crosses nodes only through WireGuard, which cannot be had here: {reason}",
            hint="--payload ethernet works without",
        )
