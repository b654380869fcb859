"""Machines that systemd boots: privileged containers with the agent's image, joined by a cable.

A container shares the kernel with this machine and nothing else that a unit could notice: process 1 is systemd, with
its own mounts, processes, network and journal.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.containers import host_vpp, image
from deploy.containers.podman import LABEL, Podman, limits
from nsmctl.lab import census
from nsmctl.lab.progress import Progress

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = "/src"
"""Where a machine has what it needs of the project's folder, ``deploy/systemd``."""

_UNITS: Final = ROOT / "deploy/systemd"

_SHARED: Final = {census.SETTING}
"""Of all machines on this kernel."""

_IMAGE: Final = "localhost/nsm-systemd:test"
_PACKAGES: Final = "systemd systemd-sysv dbus iproute2 iputils-ping procps"
_DOCKERFILE: Final = f"""
FROM {image.AGENT}
RUN apt-get update && apt-get install -y --no-install-recommends {_PACKAGES} && rm -rf /var/lib/apt/lists/*
HEALTHCHECK NONE
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/lib/systemd/systemd"]
"""
_BLOCK: Final = re.compile(r"^([^\n`]+):\n\n```\n(.*?)^```", re.MULTILINE | re.DOTALL)


def missing() -> str:
    """Why there can be no such machine, in capitals; empty if there can."""
    if shutil.which("podman") is None:
        return "NO PODMAN: apt-get install -y --no-install-recommends podman runc debootstrap"
    return "NO ROOT: machines that systemd boots are privileged containers" if os.geteuid() != 0 else ""


def commands() -> dict[str, str]:
    """The commands of ``deploy/README.md``, by the sentence in front of them."""
    return dict(_BLOCK.findall((ROOT / "deploy/README.md").read_text()))


@dataclass(frozen=True, slots=True)
class Host:
    """A running machine; ``pid`` is its process 1 as this machine sees it."""

    podman: Podman
    name: str
    address: str
    pid: int

    def sh(self, script: str) -> str:
        """What a script prints, run in the project's folder; LabError if a command of it fails."""
        return self.podman.execute(self.name, ["sh", "-ec", f"cd {PLACE}; {script}"])

    @property
    def root(self) -> Path:
        """Its file system."""
        return Path(f"/proc/{self.pid}/root")

    def space(self, name: str) -> Path:
        """The file of one of its named network namespaces."""
        return self.root / "run/netns" / name

    def active(self, *units: str) -> list[str]:
        """What ``systemctl`` says of each: ``active/running``."""
        shown = self.sh(f"systemctl show --property ActiveState,SubState --value {' '.join(units)}").split()
        return [f"{state}/{sub}" for state, sub in zip(shown[::2], shown[1::2], strict=True)]

    def ready_after(self, command: str, unit: str) -> None:
        """Run a command that starts ``unit`` again, and wait until its journal says that it serves."""
        self.sh(
            "cursor=$(journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p');"
            f'{command}; timeout 100 journalctl -f -o cat -u {unit} --after-cursor "$cursor" | grep -qw -m 1 ready'
        )

    def until(self, question: str) -> None:
        """Wait until a command succeeds, 100 s at most."""
        self.sh(f"timeout 100 sh -c 'until {question}; do sleep 0.2; done'")

    def count(self, *spaces: str) -> census.Census:
        """Links, addresses, routes, rules, sockets of the machine and of these namespaces; its VPP's objects."""
        cli = self.root / "run/nsm/vpp/cli.sock"
        places = [Path(f"/proc/{self.pid}/ns/net"), *map(self.space, spaces)]
        clis = [cli] if cli.exists() else []
        facts = census.take(spaces=places, vpp_clis=clis, names=lambda _: False).facts
        return census.Census(
            {kind: facts[kind] for kind in facts.keys() - _SHARED if not kind.endswith(" here")}
        )

    def daemons(self) -> list[str]:
        """Processes of the project and of what forwards for it."""
        return self.sh("ps -eo args | grep -E '^(/opt/nsm/|[^ ]*/(wireguard-go|vpp) )' || true").splitlines()


@contextmanager
def machines(demo: str, addresses: Sequence[str], *, vpp: bool) -> Iterator[list[Host]]:
    """Machines on one cable, each with its address on ``eth0``, booted; all gone at the end."""
    podman = Podman(demo)
    podman.remove_all()
    image.build(podman, "agent", image.AGENT, base := image.base(podman, "", Progress(quiet=True)))
    _build(podman)
    mounts: Sequence[str] = []
    binary = ""
    if vpp:
        found = host_vpp.images(podman, base, image.AGENT, "af_packet")
        mounts, binary = found.vpp_mounts, found.vpp_binary
    try:
        hosts = [_start(podman, f"{demo}-{number}", each, mounts) for number, each in enumerate(addresses, 1)]
        _cable(hosts)
        for host in hosts:
            host.until("systemctl is-system-running --wait >/dev/null")
            if binary:
                host.sh(f"ln -sf {binary} /usr/bin/vpp")
        yield hosts
    finally:
        podman.remove_all()


def _build(podman: Podman) -> None:
    with tempfile.TemporaryDirectory(prefix="nsm-systemd-") as folder:
        file = Path(folder) / "Dockerfile"
        file.write_text(_DOCKERFILE)
        words = ("--isolation", "chroot", "--format", "docker", "--pull=never", "--tag", _IMAGE)
        podman.call("build", *words, "--file", str(file), folder, timeout=image.BUILD_S)


def _start(podman: Podman, name: str, address: str, mounts: Sequence[str]) -> Host:
    volumes = [
        word for mount in (f"{_UNITS}:{PLACE}/deploy/systemd:ro", *mounts) for word in ("--volume", mount)
    ]
    words = ("--detach", "--name", name, "--hostname", name, "--label", f"{LABEL}={podman.demo}")
    kind = (
        "--privileged",
        "--systemd=always",
        "--network",
        "none",
        "--shm-size",
        "256m",
        "--log-driver",
        "none",
    )
    podman.call("run", *words, *kind, *limits(), *volumes, _IMAGE)
    return Host(podman, name, address, int(podman.call("inspect", "--format", "{{.State.Pid}}", name)))


def _cable(hosts: Sequence[Host]) -> None:
    first, second = hosts
    ends = [("name", "eth0", "netns", str(host.pid)) for host in (first, second)]
    subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], check=True)
    for host in hosts:
        host.sh("ip link set eth0 addrgenmode none")  # no address that comes of itself, and later
        host.sh(f"ip addr add {host.address}/24 dev eth0; ip link set eth0 up")
