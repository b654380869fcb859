"""A WireGuard device inside a workload's namespace, its UDP socket in the node's; by whichever engine there is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.netlink.links import Link
from nsm.model.errors import Code, NsmError

KIND: Final = "wireguard_device"
ROLE: Final = "tunnel"
KEEPALIVE: Final = 10
"""Seconds, as upstream; setting it also makes the first handshake."""


@dataclass(frozen=True, slots=True)
class WireguardDevice:
    """Device ``name`` in ``netns`` with one peer; keys are base64, ports are UDP at the nodes."""

    owner: str
    netns: NetnsId
    name: str
    mtu: int
    local_port: int
    private_key: str = field(repr=False)
    remote: str
    remote_port: int
    remote_public_key: str

    @property
    def key(self) -> Key:
        """By the passing name, which comes of the owner."""
        return Key(KIND, passing_name(self.owner))

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel as an engine finds it: the passing name, the link if there is one, the facts if they are whole."""

    name: str
    link: Link | None
    item: WireguardDevice | None = None


class Engine(Protocol):
    """One way to have WireGuard."""

    async def start(self) -> None:
        """Look whether this machine has it, and have ready what the first tunnel needs."""

    def refusal(self) -> str:
        """Why this machine cannot have it this way, and what to do about it; empty if it can."""

    def holds(self, item: WireguardDevice) -> bool:
        """Whether it has made or found the tunnel that stands for ``item``."""

    def device_mtu(self, mtu: int) -> int:
        """The MTU of the device, so that no packet gets longer on the underlay than ``mtu`` allows."""

    async def create(self, item: WireguardDevice) -> Tunnel:
        """Make the tunnel. NsmError: RESOURCE_EXHAUSTED for a port in use, ALREADY_EXISTS for a foreign name."""

    async def configure(self, old: WireguardDevice, new: WireguardDevice) -> None:
        """Another peer, or the same one elsewhere (its session stays)."""

    async def resize(self, item: WireguardDevice) -> None:
        """The MTU of ``item``."""

    async def remove(self, tunnel: Tunnel) -> None:
        """Remove the tunnel with all that belongs to it; nothing to do if it is gone."""

    async def has_handshake(self, item: WireguardDevice) -> bool:
        """Whether the peer has answered. NsmError UNAVAILABLE if the tunnel is gone."""

    async def dump(self) -> Sequence[Tunnel]:
        """Every tunnel of ours, whole or not."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A tunnel and who made it."""

    engine: Engine
    tunnel: Tunnel


class WireguardDescriptor:
    """Descriptor of ``WireguardDevice``; the handle is a ``Handle``.

    The first engine that can makes new tunnels; those that another one made before are found, changed and removed
    by that one.
    """

    kind = KIND

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    async def start(self) -> None:
        """Start the engines up to the one that makes new tunnels."""
        for engine in self._engines:
            await engine.start()
            if not engine.refusal():
                return

    def refusal(self) -> str:
        """Why no engine can, each with what to do about it; empty if one can."""
        reasons = [engine.refusal() for engine in self._engines]
        return "" if "" in reasons else "; ".join(reasons)

    async def create(self, item: WireguardDevice, handles: Handles) -> Handle:
        """Start the tunnel. NsmError: RESOURCE_EXHAUSTED for a port in use, ALREADY_EXISTS for a foreign name."""
        _ = handles
        for engine in self._engines:
            if not engine.refusal():
                return Handle(engine, await engine.create(item))
        raise NsmError(Code.FAILED_PRECONDITION, self.refusal(), field="mechanism.type")

    def updatable(self, old: WireguardDevice, new: WireguardDevice) -> bool:
        """MTU, and the peer's address, port and key."""
        return replace(_with_peer_of(new, old), mtu=new.mtu) == new

    async def update(
        self, old: WireguardDevice, new: WireguardDevice, handle: object, handles: Handles
    ) -> object:
        """Configure the difference."""
        _ = handles
        assert isinstance(handle, Handle)
        if old.mtu != new.mtu:
            await handle.engine.resize(new)
        if _with_peer_of(new, old) != old:
            await handle.engine.configure(old, new)
        return handle

    async def delete(self, item: WireguardDevice, handle: object, handles: Handles) -> None:
        """Remove the tunnel."""
        _ = item, handles
        assert isinstance(handle, Handle)
        await handle.engine.remove(handle.tunnel)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Every tunnel of ours, whole or not."""
        return [
            _present(engine, tunnel, wanted) for engine in self._engines for tunnel in await engine.dump()
        ]

    async def has_handshake(self, item: WireguardDevice) -> bool:
        """Whether the peer has answered. NsmError UNAVAILABLE if the tunnel is gone."""
        for engine in self._engines:
            if engine.holds(item):
                return await engine.has_handshake(item)
        raise NsmError(Code.UNAVAILABLE, f"the WireGuard device {item.name} is gone", field="mechanism")


def passing_name(owner: str) -> str:
    """What a tunnel is called where its interface's name says too little: the key of its item."""
    return "nsm" + hashlib.sha256(owner.encode()).hexdigest()[:11]


def port_taken(port: int) -> NsmError:
    """The refusal of a port that is in use; the shared one can hold a single tunnel on this dataplane."""
    text = (
        f"expected UDP port {port} of this node to be free for WireGuard: on the linux dataplane a port holds"
        " one tunnel (towards a peer with a fixed port, one at a time)"
    )
    return NsmError(Code.RESOURCE_EXHAUSTED, text, field="mechanism.parameters.src_port")


def _with_peer_of(new: WireguardDevice, old: WireguardDevice) -> WireguardDevice:
    return replace(
        old, remote=new.remote, remote_port=new.remote_port, remote_public_key=new.remote_public_key
    )


def _present(engine: Engine, tunnel: Tunnel, wanted: Mapping[Key, Item]) -> Present:
    key, item = Key(KIND, tunnel.name), tunnel.item
    tag = tunnel.link.tag if tunnel.link is not None else None
    wish = wanted.get(key)
    if item is not None and isinstance(wish, WireguardDevice) and engine.device_mtu(wish.mtu) == item.mtu:
        item = replace(item, mtu=wish.mtu)
    return Present(key, item, Handle(engine, tunnel), tag.owner if tag else "")
