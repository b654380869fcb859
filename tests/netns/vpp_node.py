"""A real VPP in a node's namespace, workloads beside it, and the smallest executor that items need."""

import contextlib
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forwarder_vpp.dataplane.contract.items import Descriptor, Item, Key
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
    await process.ensure()
    session = VppSession(str(process.api_socket), name="test")
    try:
        await session.start()
        yield process, session
    finally:
        await session.close()
        await process.stop()
