"""Where a network namespace can be opened again when the descriptor it came with is gone."""

import os
import re
from collections.abc import Iterator
from typing import Final

from forwarder_vpp.dataplane.contract.intent import NetnsId

_NSFS_MOUNT: Final = re.compile(r"^\S+ \S+ \S+ net:\[(\d+)\] (\S+) ", re.MULTILINE)


def candidates(netns: NetnsId) -> Iterator[str]:
    """Paths whose inode is that of ``netns``: mounted namespaces first, then those of processes.

    The inode may belong to a later namespace by now: the cookie must be compared by whoever opens one.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123  # hot
        for inode, path in _NSFS_MOUNT.findall(file.read()):
            if int(inode) == netns.inode:
                yield path.encode().decode("unicode_escape")
    for process in os.listdir("/proc"):  # noqa: PTH208  # hundreds of names
        if process.isdigit() and _is_at(f"/proc/{process}/ns/net", netns):
            yield f"/proc/{process}/ns/net"


def _is_at(path: str, netns: NetnsId) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116  # hundreds of processes
    except OSError:  # ended meanwhile, or not ours to look at
        return False
    return (status.st_dev, status.st_ino) == (netns.device, netns.inode)
