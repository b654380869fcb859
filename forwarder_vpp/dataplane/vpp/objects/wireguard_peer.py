"""The one peer of a WireGuard interface: everything the tunnel carries goes to it."""

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import wireguard as api
from forwarder_vpp.dataplane.vpp.messages.common import ANY

from .inventory import inventory
from .keys import PEER, number
from .outcome import remove

_KEEPALIVE = 10  # seconds, as the Go forwarder has it: the far side notices a lost tunnel within one rekey
_EVERYTHING = (ip_interface("0.0.0.0/0"), ip_interface("::/0"))


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """``public_key`` is the remote's in standard base64, ``remote``:``port`` where it listens."""

    interface: Key
    public_key: str
    remote: str
    port: int

    @property
    def key(self) -> Key:
        """One for an interface and a remote key."""
        return Key(PEER, f"{self.interface.id}/{self.public_key}")

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.interface,)


class WireguardPeers:
    """Descriptor of ``WireguardPeer``; the handle is VPP's peer index.

    ``made`` is called with each index that VPP gives out: it tells of that peer's handshakes from the first one on.
    """

    kind = PEER

    def __init__(self, vpp: Vpp, made: Callable[[int], None] = lambda _: None) -> None:
        self._vpp = vpp
        self._made = made

    async def create(self, item: WireguardPeer, handles: Handles) -> object:
        """Two messages, one round trip; VPP shakes hands by itself once the interface is up.

        The events are asked for by the interface, whose index is known, since the peer's is not before the answer.
        """
        index = number(handles, item.interface)
        request = api.PeerAdd(
            peer_index=0,
            preshared_key=bytes(32),
            preshared_key_set=False,
            public_key=b64decode(item.public_key),
            port=item.port,
            persistent_keepalive=_KEEPALIVE,
            table_id=0,
            endpoint=ip_address(item.remote),
            sw_if_index=index,
            flags=0,
            allowed_ips=_EVERYTHING,
        )
        events = api.WantPeerEvents(index, ANY, 1, os.getpid())
        made = await self._vpp.create(request, lambda reply: api.PeerRemove(reply.peer_index), events)
        self._made(made.peer_index)
        return made.peer_index

    def updatable(self, old: WireguardPeer, new: WireguardPeer) -> bool:
        """VPP cannot change a peer."""
        return False

    async def update(
        self, old: WireguardPeer, new: WireguardPeer, handle: object, handles: Handles
    ) -> object:
        """Never asked for."""
        return handle

    async def delete(self, item: WireguardPeer, handle: object, handles: Handles) -> None:
        """By its index."""
        assert isinstance(handle, int)
        await remove(self._vpp, api.PeerRemove(handle))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those of tagged or wanted interfaces."""
        interfaces = (await inventory(self._vpp)).by_index
        present = []
        for peer in await self._vpp.dump(api.PeerDump()):
            found = interfaces.get(peer.sw_if_index)
            if found is None:
                continue
            public_key = b64encode(peer.public_key).decode()
            item = WireguardPeer(found.key, public_key, str(peer.endpoint), peer.port)
            if found.owner or item.key in wanted:
                present.append(Present(item.key, item, peer.peer_index, found.owner))
        return present
