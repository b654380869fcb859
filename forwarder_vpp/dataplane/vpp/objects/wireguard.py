"""A WireGuard interface of VPP."""

import os
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.errors import GONE
from forwarder_vpp.dataplane.vpp.messages import wireguard as api
from forwarder_vpp.dataplane.vpp.messages.common import ANY

from .inventory import fingerprint, inventory
from .keys import WIREGUARD
from .outcome import remove

_GONE = GONE | {"INVALID_VALUE"}


@dataclass(frozen=True, slots=True)
class Wireguard:
    """``private_key`` is standard base64; ``local``:``port`` is the own side."""

    private_key: str = field(repr=False)
    local: str
    port: int
    needs: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """By the key pair."""
        return Key(WIREGUARD, fingerprint(b64decode(self.private_key)))

    @property
    def requires(self) -> tuple[Key, ...]:
        """The port on the host."""
        return self.needs


class Wireguards:
    """Descriptor of ``Wireguard``; the handle is the ``sw_if_index``."""

    kind = WIREGUARD

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: Wireguard, handles: Handles) -> object:
        """One message."""
        return await self._make(b64decode(item.private_key), item.port, item.local)

    async def _make(self, private_key: bytes, port: int, local: str) -> int:
        request = api.WireguardCreate(
            user_instance=ANY,
            sw_if_index=ANY,
            private_key=private_key,
            public_key=bytes(32),
            port=port,
            src_ip=ip_address(local),
        )
        made = await self._vpp.create(request, lambda reply: api.WireguardDelete(reply.sw_if_index))
        index: int = made.sw_if_index
        return index

    def updatable(self, old: Wireguard, new: Wireguard) -> bool:
        """Only what it needs may differ."""
        return (old.key, old.local, old.port) == (new.key, new.local, new.port)

    async def update(self, old: Wireguard, new: Wireguard, handle: object, handles: Handles) -> object:
        """Nothing in VPP changes."""
        return handle

    async def delete(self, item: Wireguard, handle: object, handles: Handles) -> None:
        """One message; on a port that others share, behind a throw-away interface.

        VPP strikes the last interface off a port's list, whichever is deleted (unless it is the first):
        without the throw-away another tunnel would never shake hands again.
        """
        assert isinstance(handle, int)
        listed = await self._vpp.dump(api.WireguardDump())
        if not any(each.port == item.port and each.sw_if_index != handle for each in listed):
            await remove(self._vpp, api.WireguardDelete(handle), gone=_GONE)
            return
        spare = await self._make(os.urandom(32), item.port, item.local)
        await remove(self._vpp, api.WireguardDelete(handle), api.WireguardDelete(spare), gone=_GONE)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Tagged ones and those with a wanted key pair."""
        present = []
        for found in (await inventory(self._vpp)).by_index.values():
            have = found.details
            if not isinstance(have, api.WireguardDetails) or not (found.owner or found.key in wanted):
                continue
            known = wanted.get(found.key)
            needs = known.needs if isinstance(known, Wireguard) else ()
            private_key = b64encode(have.private_key).decode()
            item = Wireguard(private_key, str(have.src_ip), have.port, needs)
            present.append(Present(found.key, item, found.index, found.owner))
        return present
