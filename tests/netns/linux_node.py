"""Nodes and workloads as namespaces, the linux dataplane in a node, and the smallest executor items need."""

import contextlib
import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId
from forwarder_vpp.dataplane.contract.items import Descriptor, Item, Key, Present
from forwarder_vpp.dataplane.linux.dataplane import IN_KERNEL, WIREGUARD_GO, LinuxDataplane
from nsm.model.context import Route
from nsmctl.lab.namespaces import entered


def run(*words: str, check: bool = True, given: str = "") -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, input=given)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def inside(netns: Path, *words: str, check: bool = True, given: str = "") -> str:
    return run("nsenter", f"--net={netns}", *words, check=check, given=given)


def ping(netns: Path, address: str, *, count: int = 5, size: int = 56) -> int:
    """How many of ``count`` were answered, within 4 s.

    With a deadline ``ping`` goes on until it has ``count`` answers; without one it would give up on the last after
    two round trips, which on a busy machine is no sign of a loss.
    """
    words = ["ping", "-c", str(count), "-i", "0.02", "-w", "4", "-s", str(size), address]
    text = inside(netns, *words, check=False)
    return len(
        {int(each) for each in re.findall(r"bytes from .* icmp_seq=(\d+)", text)} & {*range(1, count + 1)}
    )


_FACTS = ("addr show", "route show table all", "rule show", "neigh show")


def census(*namespaces: Path) -> list[object]:
    """What ``ip`` sees in each namespace, without counters, and whether or not an address is tentative still."""
    found: list[object] = []
    for netns in namespaces:
        for family in ("-4", "-6"):
            for what, shown in zip(_FACTS, _shown(netns, family, _FACTS), strict=True):
                for address in (each for link in shown for each in link.get("addr_info", ())):
                    address.pop("tentative", None)
                found.append((netns.name, what.split()[0], family, shown))
        (links,) = _shown(netns, "-0", ["link show"])
        found.append(sorted((each["ifname"], each["mtu"], tuple(each["flags"])) for each in links))
    return found


def _shown(netns: Path, family: str, commands: Sequence[str]) -> list[list[dict[str, Any]]]:
    """The answers of one ``ip`` to several commands: a line of JSON each."""
    words = ("ip", "-j", family, "-b", "-")
    lines = inside(netns, *words, given="\n".join(commands) + "\n").splitlines()
    assert len(lines) == len(commands), lines
    return [json.loads(line) for line in lines]


def underlay(first: Path, second: Path, mtu: int = 1500) -> None:
    """Two nodes joined by a veth: 192.0.2.1 and 192.0.2.2, fd00::1 and fd00::2."""
    one, two = ("name", "eth0", "netns", first.name), ("name", "eth0", "netns", second.name)
    run("ip", "link", "add", *one, "mtu", str(mtu), "type", "veth", "peer", *two, "mtu", str(mtu))
    for number, node in ((1, first), (2, second)):
        inside(
            node, "ip", "link", "set", "eth0", "addrgenmode", "none"
        )  # no address that is tentative for a while
        inside(node, "ip", "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
        inside(node, "ip", "addr", "add", f"fd00::{number}/64", "dev", "eth0", "nodad")
        inside(node, "ip", "link", "set", "eth0", "up")


@contextlib.asynccontextmanager
async def dataplane(
    node: Path,
    state: Path,
    ip: str = "192.0.2.1",
    instance: str = "",
    engines: Sequence[str] = (IN_KERNEL, WIREGUARD_GO),
) -> Any:
    plane = LinuxDataplane(ip, state, instance=instance or node.name, engines=engines)
    with entered(node):
        await plane.start()
    try:
        yield plane
    finally:
        await plane.close()


class Handles:
    def __init__(self) -> None:
        self.known: dict[Key, object] = {}

    def handle(self, key: Key) -> object:
        return self.known[key]


class Executor:
    """Creates items as they come (requirements first), deletes them in the opposite order."""

    def __init__(self, plane: LinuxDataplane) -> None:
        self.descriptors: Mapping[str, Descriptor[Any]] = {each.kind: each for each in plane.descriptors}
        self.handles = Handles()

    async def create(self, items: Iterable[Item]) -> None:
        for item in items:
            self.handles.known[item.key] = await self.descriptors[item.key.kind].create(item, self.handles)

    async def delete(self, items: Iterable[Item]) -> None:
        for item in reversed(tuple(items)):
            handle = self.handles.known.pop(item.key)
            await self.descriptors[item.key.kind].delete(item, handle, self.handles)

    async def dump(self, items: Iterable[Item]) -> dict[Key, Present]:
        wanted = {item.key: item for item in items}
        found = [present for each in self.descriptors.values() for present in await each.dump(wanted)]
        self.handles.known.update({each.key: each.handle for each in found})
        return {each.key: each for each in found}


def client_end(netns: NetnsId, interface: str = "nsm-1", number: int = 1) -> KernelEnd:
    return KernelEnd(
        netns,
        interface,
        (f"172.16.{number}.1/32", f"fd16:{number}::1/128"),
        (
            Route(f"172.16.{number}.2/32"),
            Route(f"fd16:{number}::2/128"),
            Route("198.51.100.0/24", f"172.16.{number}.2"),
        ),
    )


def endpoint_end(netns: NetnsId, interface: str = "nse-1", number: int = 1) -> KernelEnd:
    return KernelEnd(
        netns,
        interface,
        (f"172.16.{number}.2/32", f"fd16:{number}::2/128"),
        (Route(f"172.16.{number}.1/32"), Route(f"fd16:{number}::1/128")),
    )


def local(client: NetnsId, endpoint: NetnsId, owner: str = "owner1", mtu: int = 1500) -> Intent:
    return Intent("id-" + owner, owner, "IP", mtu, client_end(client), endpoint_end(endpoint))
