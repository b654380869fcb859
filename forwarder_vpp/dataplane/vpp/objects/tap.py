"""A virtio tap with its kernel side in the workload's namespace; needs /dev/vhost-net."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import tap as api
from forwarder_vpp.dataplane.vpp.messages.common import ANY
from nsm.model.errors import Code, NsmError

from .inventory import inventory
from .keys import TAP
from .outcome import remove

_RING = 1024  # descriptors; VPP's default of 256 drops bursts of large segments
_PATH_LIMIT = 63


@dataclass(frozen=True, slots=True)
class Tap:
    """``interface`` is the kernel's name in ``netns``; both MACs are chosen by us, ``mtu`` in bytes.

    ``large_segments``: the workload leaves checksums, and the cutting of what is longer than ``mtu``, to VPP.
    """

    netns: NetnsId
    interface: str
    mac: str
    host_mac: str
    mtu: int
    tag: str
    large_segments: bool = True

    @property
    def key(self) -> Key:
        """By the tag, as the kernel's name is unique in its namespace only."""
        return Key(TAP, self.tag)

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing: VPP makes the kernel side too."""
        return ()


class Taps:
    """Descriptor of ``Tap``; ``path_of`` gives a path to a namespace that stays good without the agent."""

    kind = TAP

    def __init__(self, vpp: Vpp, path_of: Callable[[NetnsId], str]) -> None:
        self._vpp = vpp
        self._path_of = path_of

    async def create(self, item: Tap, handles: Handles) -> object:
        """One message, tag, MTU and MACs included."""
        request = tap_request(item, self._path_of(item.netns))
        made = await self._vpp.create(request, lambda reply: api.TapDelete(reply.sw_if_index))
        return made.sw_if_index

    def updatable(self, old: Tap, new: Tap) -> bool:
        """The host side's MTU is the workload's link's business."""
        return old == replace(new, mtu=old.mtu)

    async def update(self, old: Tap, new: Tap, handle: object, handles: Handles) -> object:
        """Nothing in VPP changes."""
        return handle

    async def delete(self, item: Tap, handle: object, handles: Handles) -> None:
        """The kernel's side goes too."""
        assert isinstance(handle, int)
        await remove(self._vpp, api.TapDelete(handle))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Tagged ones; the namespace is taken from the wanted item of that tag."""
        present = []
        for found in (await inventory(self._vpp)).by_index.values():
            if not isinstance(found.details, api.TapDetails) or not found.owner:
                continue
            known = wanted.get(found.key)
            item = None
            if isinstance(known, Tap):
                macs = (found.common.l2_address.hex(":"), found.details.host_mac_addr.hex(":"))
                large = bool(found.details.tap_flags & api.GSO)
                item = Tap(known.netns, found.details.host_if_name, *macs, known.mtu, known.tag, large)
            present.append(Present(found.key, item, found.index, found.owner))
        return present


def tap_request(item: Tap, namespace: str) -> api.TapCreate:
    """The creation. NsmError: a path longer than VPP keeps."""
    if len(namespace.encode()) > _PATH_LIMIT:
        message = f"the namespace's path is longer than the {_PATH_LIMIT} bytes VPP takes: {namespace}"
        raise NsmError(Code.FAILED_PRECONDITION, message)
    return api.TapCreate(
        id=ANY,
        use_random_mac=False,
        mac_address=bytes.fromhex(item.mac.replace(":", "")),
        num_rx_queues=1,
        num_tx_queues=1,
        tx_ring_sz=_RING,
        rx_ring_sz=_RING,
        host_mtu_set=bool(item.mtu),
        host_mtu_size=item.mtu,
        host_mac_addr_set=True,
        host_mac_addr=bytes.fromhex(item.host_mac.replace(":", "")),
        host_ip4_prefix_set=False,
        host_ip4_prefix=bytes(5),
        host_ip6_prefix_set=False,
        host_ip6_prefix=bytes(17),
        host_ip4_gw_set=False,
        host_ip4_gw=bytes(4),
        host_ip6_gw_set=False,
        host_ip6_gw=bytes(16),
        tap_flags=api.GSO | api.CSUM_OFFLOAD | api.GRO_COALESCE if item.large_segments else 0,
        host_namespace_set=True,
        host_namespace=namespace,
        host_if_name_set=True,
        host_if_name=item.interface,
        host_bridge_set=False,
        host_bridge="",
        tag=item.tag,
    )
