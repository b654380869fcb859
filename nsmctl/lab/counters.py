"""What the tunnels themselves counted: read from the kernel's devices or from VPP's CLI, not from the daemons."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab import namespaces

_TUNNEL_KINDS: Final = {"vxlan", "wireguard", "tun"}
_VPP_TUNNEL: Final = re.compile(r"^(vxlan_tunnel|wg)\d+\s")
_VPP_COUNTER: Final = re.compile(r"\b([rt]x) packets\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets a node's tunnels have received and sent."""

    rx: int
    tx: int

    def since(self, before: "Packets") -> "Packets":
        """The difference."""
        return Packets(self.rx - before.rx, self.tx - before.tx)


def of_kernel(space: Path) -> Packets:
    """All tunnel devices of one namespace."""
    rx = tx = 0
    with namespaces.entered(space):
        text = subprocess.run(
            ["ip", "-d", "-s", "-j", "link", "show"], capture_output=True, text=True, check=True
        ).stdout
    for link in json.loads(text):
        if link.get("linkinfo", {}).get("info_kind") in _TUNNEL_KINDS:
            rx += link["stats64"]["rx"]["packets"]
            tx += link["stats64"]["tx"]["packets"]
    return Packets(rx, tx)


def of_vpp(cli: Path) -> Packets:
    """All tunnel interfaces of one VPP, by ``show interface``."""
    totals = {"rx": 0, "tx": 0}
    counted = False
    for line in vppctl(cli, "show interface").splitlines():
        if line[:1].strip():  # a new interface; its first counter stands on the same line
            counted = bool(_VPP_TUNNEL.match(line))
        found = _VPP_COUNTER.search(line)
        if counted and found:
            totals[found[1]] += int(found[2])
    return Packets(**totals)


def vppctl(cli: Path, command: str) -> str:
    """What VPP's CLI answers; LabError if there is none."""
    try:
        done = subprocess.run(
            ["vppctl", "-s", str(cli), *command.split()],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except FileNotFoundError:
        raise LabError("vppctl was not found", hint="install FD.io's package vpp") from None
    if done.returncode != 0:
        raise LabError(f"VPP did not answer on {cli}: {done.stderr.strip()}")
    return done.stdout
