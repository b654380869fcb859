"""A VXLAN tunnel: Ethernet payload between nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import vxlan as api
from forwarder_vpp.dataplane.vpp.messages.common import ANY

from .inventory import inventory, vxlan_id
from .keys import VXLAN
from .outcome import remove


@dataclass(frozen=True, slots=True)
class VxlanTunnel:
    """Between two addresses; each side's port is the one it listens on."""

    local: str
    remote: str
    vni: int
    local_port: int
    remote_port: int
    needs: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        """Everything VPP tells tunnels apart by."""
        name = vxlan_id(
            ip_address(self.local), ip_address(self.remote), self.local_port, self.remote_port, self.vni
        )
        return Key(VXLAN, name)

    @property
    def requires(self) -> tuple[Key, ...]:
        """The port on the host."""
        return self.needs


class VxlanTunnels:
    """Descriptor of ``VxlanTunnel``; the handle is the ``sw_if_index``."""

    kind = VXLAN

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: VxlanTunnel, handles: Handles) -> object:
        """One message. Frames that arrive go to layer 2 input."""
        made = await self._vpp.create(_message(item, is_add=True), lambda _: _message(item, is_add=False))
        return made.sw_if_index

    def updatable(self, old: VxlanTunnel, new: VxlanTunnel) -> bool:
        """Only what it needs differs: all other facts are in the key."""
        return old.key == new.key

    async def update(self, old: VxlanTunnel, new: VxlanTunnel, handle: object, handles: Handles) -> object:
        """Nothing in VPP changes."""
        return handle

    async def delete(self, item: VxlanTunnel, handle: object, handles: Handles) -> None:
        """By its facts."""
        await remove(self._vpp, _message(item, is_add=False))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Tagged ones and wanted ones."""
        present = []
        for found in (await inventory(self._vpp)).by_index.values():
            have = found.details
            if not isinstance(have, api.VxlanDetails) or not (found.owner or found.key in wanted):
                continue
            known = wanted.get(found.key)
            needs = known.needs if isinstance(known, VxlanTunnel) else ()
            addresses = (str(have.src_address), str(have.dst_address))
            item = VxlanTunnel(*addresses, have.vni, have.src_port, have.dst_port, needs)
            present.append(Present(found.key, item, found.index, found.owner))
        return present


def _message(item: VxlanTunnel, *, is_add: bool) -> api.VxlanTunnel:
    return api.VxlanTunnel(
        is_add=is_add,
        instance=ANY,
        src_address=ip_address(item.local),
        dst_address=ip_address(item.remote),
        src_port=item.local_port,
        dst_port=item.remote_port,
        mcast_sw_if_index=ANY,
        encap_vrf_id=0,
        decap_next_index=api.DECAP_L2_INPUT,
        vni=item.vni,
    )
