"""The Go workloads that bring a VPP: its files are at fixed places, so each gets those places for itself.

A mount namespace with an own /run (but the labs' folder), /etc, /var/log and /dev/shm; nothing of it outlives them.
Its start-up configuration is there before they look for one: theirs wants huge pages and a group ``vpp``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from nsmctl.lab.topology import RUN, Node

from .peers import GoDaemon, client, endpoint

CLIENT: Final = "cmd-nsc-vpp"
ENDPOINT: Final = "cmd-nse-icmp-responder-vpp"
ALL: Final = (CLIENT, ENDPOINT)

_APART: Final = ("/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A process namespace too: a program of theirs that fails leaves its VPP running."""

CONFIGURATION: Final = """
unix { nodaemon nosyslog log /var/log/vpp/vpp.log cli-listen /var/run/vpp/cli.sock }
socksvr { socket-name /var/run/vpp/api.sock }
memory { main-heap-size 256M main-heap-page-size default }
buffers { buffers-per-numa 8192 page-size default }
statseg { socket-name /var/run/vpp/stats.sock size 32m page-size default }
plugins { plugin dpdk_plugin.so { disable } }
"""
_ENTER: Final = f"""
set -e
mount -t tmpfs tmpfs /mnt
cp -a /etc/. /mnt
mkdir -p /mnt/vpp/helper
echo '{CONFIGURATION}' > /mnt/vpp/helper/vpp.conf
mount --move /mnt /etc
mount --bind {RUN} /mnt
mount -t tmpfs tmpfs /run
mkdir {RUN}
mount --move /mnt {RUN}
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /dev/shm
exec "$0"
"""


class Isolated(GoDaemon):
    """A Go workload in a mount namespace of its own."""

    @property
    def argv(self) -> tuple[str, ...]:
        """Through ``unshare`` and a shell that becomes the program."""
        return (*_APART, "/bin/sh", "-c", _ENTER, *super().argv)


def vpp_client(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> Isolated:
    """A client that asks for MEMIF."""
    like = client(node, name, netns, extra)
    return Isolated(like.name, CLIENT, like.netns, like.log, like.env)


def vpp_endpoint(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> Isolated:
    """An endpoint that serves MEMIF."""
    like = endpoint(node, name, netns, extra)
    return Isolated(like.name, ENDPOINT, like.netns, like.log, like.env)
