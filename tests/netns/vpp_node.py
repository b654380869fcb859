"""A real VPP in a node's namespace, workloads beside it, and the smallest executor that items need."""

import contextlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Descriptor, Item, Key
from forwarder_vpp.dataplane.netlink.link_config import LinkConfig
from forwarder_vpp.dataplane.netlink.veth import Veth
from forwarder_vpp.dataplane.vpp.messages.acl import AclDump
from forwarder_vpp.dataplane.vpp.messages.interface import InterfaceDump
from forwarder_vpp.dataplane.vpp.messages.ip import NeighbourDump
from forwarder_vpp.dataplane.vpp.messages.l2 import L2XconnectDump
from forwarder_vpp.dataplane.vpp.messages.l3xc import L3xcDump
from forwarder_vpp.dataplane.vpp.messages.wireguard import PeerDump
from forwarder_vpp.dataplane.vpp.objects.all import vpp_descriptors
from forwarder_vpp.dataplane.vpp.objects.tap import Taps
from forwarder_vpp.dataplane.vpp.objects.udp_port import UdpPort, UdpPorts
from forwarder_vpp.dataplane.vpp.offload import own_checksums
from forwarder_vpp.dataplane.vpp.process import VppProcess
from forwarder_vpp.dataplane.vpp.session import VppSession
from nsmctl.lab.namespaces import entered


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def inside(netns: str, *words: str, check: bool = True) -> str:
    return run("ip", "netns", "exec", netns, *words, check=check)


def ping(netns: str, address: str, *, count: int = 5, size: int = 56) -> int:
    """How many of ``count`` were answered."""
    words = ["ping", "-c", str(count), "-i", "0.02", "-W", "2", "-s", str(size), address]
    text = inside(netns, *words, check=False)
    return int(text.split(" received")[0].rpartition(" ")[2]) if " received" in text else 0


class Handles:
    def __init__(self) -> None:
        self.known: dict[Key, object] = {}

    def handle(self, key: Key) -> object:
        return self.known[key]


@dataclass
class Executor:
    """Creates in the order of ``requires``, deletes in the opposite one."""

    descriptors: Mapping[str, Descriptor[Any]]
    handles: Handles = field(default_factory=Handles)
    items: dict[Key, Item] = field(default_factory=dict)

    async def create(self, items: Iterable[Item]) -> None:
        waiting = [each for each in items if each.key not in self.items]
        while waiting:
            ready = [each for each in waiting if all(key in self.items for key in each.requires)]
            assert ready, f"requirements never met: {waiting}"
            for item in ready:
                self.handles.known[item.key] = await self.descriptors[item.key.kind].create(
                    item, self.handles
                )
                self.items[item.key] = item
            waiting = [each for each in waiting if each.key not in self.items]

    async def delete(self, items: Iterable[Item]) -> None:
        waiting = [each for each in items if each.key in self.items]
        while waiting:
            needed = {key for each in waiting for key in each.requires}
            for item in [each for each in waiting if each.key not in needed]:
                handle = self.handles.known[item.key]
                await self.descriptors[item.key.kind].delete(item, handle, self.handles)
                del self.handles.known[item.key], self.items[item.key]
            waiting = [each for each in waiting if each.key in self.items]


class IpVeths:
    """``Veth`` items by ``ip``: these tests are about VPP, not about netlink. ``names``: netns of each id."""

    kind = "veth"

    def __init__(self, node: str, names: Mapping[NetnsId, str]) -> None:
        self._node = node
        self._names = names

    async def create(self, item: Veth, handles: object) -> object:
        """The pair, both ends up, IPv6 silent at the node."""
        place = self._names[item.near.netns]
        near = (
            "name",
            item.near.name,
            "netns",
            place,
            "address",
            item.near.mac,
            "mtu",
            str(item.mtu),
        )
        far = ("name", item.far.name, "address", item.far.mac, "mtu", str(item.mtu))
        inside(self._node, "ip", "link", "add", *far, "type", "veth", "peer", *near)
        inside(self._node, "sysctl", "-qw", f"net.ipv6.conf.{item.far.name}.disable_ipv6=1")
        inside(self._node, "ip", "link", "set", item.far.name, "up")
        inside(place, "ip", "link", "set", item.near.name, "up")
        if not item.large_segments:
            with entered(Path(f"/run/netns/{place}")):
                own_checksums(item.near.name)
        return None

    async def delete(self, item: Veth, handle: object, handles: object) -> None:
        inside(self._node, "ip", "link", "del", item.far.name)


class IpLinkConfigs:
    """``LinkConfig`` items by ``ip``."""

    kind = "link_config"

    def __init__(self, names: Mapping[NetnsId, str]) -> None:
        self._names = names

    async def create(self, item: LinkConfig, handles: object) -> object:
        place, device = self._names[item.netns], ("dev", item.interface)
        for address in item.addresses:
            inside(place, "ip", "addr", "add", address, *device, *(("nodad",) if ":" in address else ()))
        for each in item.neighbours:
            words = ("ip", "neigh", "add", each.ip, "lladdr", each.hardware_address)
            inside(place, *words, *device, "nud", "permanent")
        for route in item.routes:
            inside(place, "ip", "route", "add", route.prefix, *device)
        return None

    async def delete(self, item: LinkConfig, handle: object, handles: object) -> None:
        """Goes with the link."""


class HeldPorts(UdpPorts):
    """Sockets in the node's namespace."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._path = Path(f"/run/netns/{node}")

    async def create(self, item: UdpPort, handles: Any) -> object:
        with entered(self._path):
            return await super().create(item, handles)  # never leaves this turn of the loop


@dataclass
class Node:
    """One VPP with an executor for everything it may hold."""

    netns: str
    process: VppProcess
    session: VppSession
    executor: Executor

    def cli(self, *words: str) -> str:
        return run("vppctl", "-s", str(self.process.runtime_dir / "cli.sock"), *words)

    async def census(self) -> list[str]:
        """Everything in VPP beside what it is born with, asked for message by message."""
        found = [f"interface {each.interface_name}" for each in await self.session.dump(InterfaceDump())]
        found += [f"l2 {each}" for each in await self.session.dump(L2XconnectDump())]
        found += [f"l3 {each.sw_if_index}" for each in await self.session.dump(L3xcDump())]
        found += [f"peer {each.peer_index}" for each in await self.session.dump(PeerDump())]
        found += [f"acl {each.tag}" for each in await self.session.dump(AclDump())]
        for family in (0, 1):
            neighbours = await self.session.dump(NeighbourDump(af=family))
            found += [
                f"neighbour {each.sw_if_index} {each.ip_address}" for each in neighbours if each.flags & 1
            ]
        return sorted(found)


@contextlib.asynccontextmanager
async def node(netns: str, folder: Path, binary: str, names: Mapping[NetnsId, str]) -> Any:
    """A node in ``netns`` with a VPP of its own; workloads are in ``names``."""
    async with vpp_in(netns, folder, binary) as (process, session):
        ports = HeldPorts(netns)
        kinds: list[Any] = [ports, IpVeths(netns, names), IpLinkConfigs(names), *vpp_descriptors(session)]
        kinds.append(Taps(session, lambda each: f"/run/netns/{names[each]}"))
        try:
            yield Node(netns, process, session, Executor({each.kind: each for each in kinds}))
        finally:
            ports.close()


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    made: list[str] = []
    try:
        for name in names:
            run("ip", "netns", "add", name)
            made.append(name)
            inside(name, "ip", "link", "set", "lo", "up")
        yield
    finally:
        for name in made:
            run("ip", "netns", "del", name)


@contextlib.asynccontextmanager
async def vpp_in(netns: str, folder: Path, binary: str) -> Any:
    """Process and session of a VPP whose sockets are in ``netns``."""
    process = VppProcess(folder, binary=binary)
    with entered(Path(f"/run/netns/{netns}")):
        process.begin()
    await process.ensure(timeout=60)
    session = VppSession(str(process.api_socket), name="test")
    try:
        await session.start()
        yield process, session
    finally:
        await session.close()
        await process.stop()
