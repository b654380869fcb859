"""A dataplane in memory, for tests of everything above it: semantic, with planned errors and a crash."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forwarder_vpp.dataplane.contract.dataplane import Counters
from forwarder_vpp.dataplane.contract.intent import End, Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Descriptor, Handles, Item, Key, Present
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.mechanism import ETHERNET, IP, KERNEL, LOCAL, REMOTE, VXLAN, WIREGUARD, Mechanism


@dataclass(frozen=True, slots=True)
class FakeItem:
    """``facts`` can be changed in place, ``fixed`` cannot; it goes along with ``carrier``."""

    key: Key
    requires: tuple[Key, ...] = ()
    fixed: object = None
    facts: object = None
    carrier: Key | None = None


class FakeDescriptor:
    """Objects of one kind in ``FakeDataplane.objects``."""

    def __init__(self, kind: str, plane: "FakeDataplane") -> None:
        self.kind = kind
        self._plane = plane

    async def create(self, item: FakeItem, handles: Handles) -> object:
        await self._plane.step("create", item.key)
        for each in item.requires:
            handles.handle(each)
            assert each in self._plane.objects, f"{item.key} made before {each}"
        assert item.key not in self._plane.objects, f"{item.key} made twice"
        self._plane.objects[item.key] = item
        return object()

    def updatable(self, old: FakeItem, new: FakeItem) -> bool:
        return (old.fixed, old.requires) == (new.fixed, new.requires)

    async def update(self, old: FakeItem, new: FakeItem, handle: object, handles: Handles) -> object:
        await self._plane.step("update", new.key)
        assert new.key in self._plane.objects
        self._plane.objects[new.key] = new
        return handle

    async def delete(self, item: FakeItem, handle: object, handles: Handles) -> None:
        key = item.key
        await self._plane.step("delete", key)
        for carried in [other.key for other in self._plane.objects.values() if other.carrier == key]:
            del self._plane.objects[carried]
        above = [other.key for other in self._plane.objects.values() if key in other.requires]
        assert not above, f"{key} deleted under {above}"
        self._plane.objects.pop(key, None)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        self._plane.check_alive()
        return [
            Present(k, item, object(), "x") for k, item in self._plane.objects.items() if k.kind == self.kind
        ]


@dataclass
class FakeNamespaces:
    """``known`` maps paths to ids; ``foreign``: links of others by their alias."""

    known: dict[str, NetnsId] = field(default_factory=dict)
    callbacks: list[Callable[[NetnsId], None]] = field(default_factory=list)
    foreign: set[tuple[NetnsId, str]] = field(default_factory=set)

    def learn(self, path: str) -> NetnsId:
        if path not in self.known:
            raise invalid("inodeURL", "the path of a network namespace", path)
        return self.known[path]

    def on_gone(self, callback: Callable[[NetnsId], None]) -> None:
        self.callbacks.append(callback)

    async def remove_foreign(self, netns: NetnsId, alias: str) -> int:
        before = len(self.foreign)
        self.foreign.discard((netns, alias))
        return before - len(self.foreign)

    def end(self, netns: NetnsId) -> None:
        self.known = {path: each for path, each in self.known.items() if each != netns}
        for callback in self.callbacks:
            callback(netns)


KINDS = ("port", "link", "config", "cross")


class FakeDataplane:
    """Implements ``Dataplane``. A ``(verb, kind)`` in ``errors`` fails that many times; ``log`` is what was written.

    ``gate`` holds every step back until it is set, ``gates`` the steps of one ``(verb, kind)``.
    """

    name = "fake"
    workload_kinds: frozenset[str] = frozenset({"config"})

    def __init__(self, tunnel_ip: str = "10.0.0.1", tunnel_mtu: int = 1500) -> None:
        self.tunnel_ip = tunnel_ip
        self.tunnel_mtu = tunnel_mtu
        self.namespaces = FakeNamespaces()
        self.objects: dict[Key, FakeItem] = {}
        self.log: list[tuple[str, Key]] = []
        self.errors: dict[tuple[str, str], int] = {}
        self.settle_error: NsmError | None = None
        self.gate: asyncio.Event | None = None
        self.gates: dict[tuple[str, str], asyncio.Event] = {}
        self.settled: list[str] = []
        self.is_dead = False
        self._lost: list[Callable[[], None]] = []
        self.descriptors: Sequence[Descriptor[Any]] = tuple(FakeDescriptor(kind, self) for kind in KINDS)

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    def check_alive(self) -> None:
        if self.is_dead:
            raise NsmError(Code.UNAVAILABLE, "the fake is dead")

    async def step(self, verb: str, key: Key) -> None:
        self.check_alive()
        if self.gate is not None:
            await self.gate.wait()
        if (gate := self.gates.get((verb, key.kind))) is not None:
            await gate.wait()
        await asyncio.sleep(0)
        if self.errors.get((verb, key.kind), 0):
            self.errors[verb, key.kind] -= 1
            raise NsmError(Code.UNAVAILABLE, f"planned: {verb} {key}")
        self.log.append((verb, key))

    def node_items(self) -> tuple[Item, ...]:
        return (FakeItem(Key("port", "uplink")),)

    def items(self, intent: Intent) -> tuple[Item, ...]:
        return tuple(self._items(intent))

    def _items(self, intent: Intent) -> Iterator[FakeItem]:
        links = []
        for role, end in (("c", intent.client), ("e", intent.endpoint)):
            needs: tuple[Key, ...] = ()
            if isinstance(end, VxlanEnd | WireguardEnd):
                port = FakeItem(Key("port", str(end.local_port)), (Key("port", "uplink"),))
                needs = (port.key,)
                yield port
            link = FakeItem(_link_key(intent, role, end), needs, _fixed(end))
            links.append(link.key)
            yield link
            if isinstance(end, KernelEnd):
                yield FakeItem(Key("config", link.key.id), (link.key,), None, (end, intent.mtu), link.key)
        yield FakeItem(Key("cross", intent.owner), tuple(links), intent.payload)

    def offers(self, payload: str) -> tuple[tuple[str, str], ...]:
        return {IP: ((LOCAL, KERNEL), (REMOTE, WIREGUARD)), ETHERNET: ((LOCAL, KERNEL), (REMOTE, VXLAN))}.get(
            payload, ()
        )

    def refusal(self, mechanism: Mechanism, payload: str) -> NsmError | None:
        if (mechanism.cls, mechanism.type) in self.offers(payload):
            return None
        return invalid("mechanism.type", "one of the fake's", f"{mechanism.cls}/{mechanism.type}")

    async def settle(self, intent: Intent, timeout: float) -> None:  # noqa: ASYNC109
        self.settled.append(intent.id)
        if self.settle_error is not None:
            raise self.settle_error

    async def counters(self, intents: Sequence[Intent]) -> Mapping[str, tuple[Counters, Counters]]:
        return {intent.id: (Counters(1, 2, 3, 4, 5), Counters(6, 7, 8, 9, 10)) for intent in intents}

    def on_lost(self, callback: Callable[[], None]) -> None:
        self._lost.append(callback)

    def die(self) -> None:
        """Everything is gone."""
        self.is_dead = True
        self.objects.clear()

    def come_back(self) -> None:
        self.is_dead = False
        for callback in self._lost:
            callback()


def _link_key(intent: Intent, role: str, end: End) -> Key:
    if isinstance(end, VxlanEnd):
        return Key("link", f"vxlan-{end.remote}-{end.vni}")
    return Key("link", f"{intent.owner}/{role}")


def _fixed(end: End) -> object:
    return (end.netns, end.interface, end.mac) if isinstance(end, KernelEnd) else end
