"""Links of workloads that may come from the pool: the descriptors of the pair and of VPP's interface on it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.netlink.namespaces import NodeNetlink
from forwarder_vpp.dataplane.netlink.ready import FAR_NAMES
from forwarder_vpp.dataplane.netlink.veth import Veth, far_name

from .objects.af_packet import AfPacket, AfPackets, link_of
from .offload import TunnelVeths
from .pool import WarmPool


class PooledVeths(TunnelVeths):
    """``TunnelVeths`` that takes a waiting pair for a link between two workloads of the node.

    Such links all have rings of one shape, the pool's.
    """

    def __init__(self, netlink: NodeNetlink, pool: WarmPool) -> None:
        super().__init__(netlink)
        self._pool = pool

    async def create(self, item: Veth, handles: Handles) -> Any:
        """The waiting pair, else a new one."""
        with self._pool.held_off():
            ends = await self._pool.hand_over(item) if item.large_segments else None
            return ends or await super().create(item, handles)

    async def delete(self, item: Veth, handle: object, handles: Handles) -> None:
        """The pair, after VPP's interface on it that nobody has claimed."""
        with self._pool.held_off():
            await self._pool.abandon(far_name(handle))
            await super().delete(item, handle, handles)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """What exists; a pair from the pool is as wanted whatever its far end is called."""
        return [_as_wanted(each, wanted.get(each.key)) for each in await super().dump(wanted)]


class PooledAfPackets(AfPackets):
    """``AfPackets`` that finds the interface of a pair from the pool there already."""

    def __init__(self, vpp: Vpp, pool: WarmPool) -> None:
        super().__init__(vpp)
        self._pool = pool

    async def create(self, item: AfPacket, handles: Handles) -> object:
        """No message at all for a pair from the pool: its interface is that of any connection up to its ``Port``."""
        with self._pool.held_off():
            claimed = self._pool.claim(link_of(item, handles))
            return claimed if claimed is not None else await super().create(item, handles)

    async def delete(self, item: AfPacket, handle: object, handles: Handles) -> None:
        """By the name of its link."""
        with self._pool.held_off():
            await super().delete(item, handle, handles)


def _as_wanted(there: Present, wanted: Item | None) -> Present:
    if (
        isinstance(wanted, Veth)
        and isinstance(there.item, Veth)
        and there.item.far.name.startswith(FAR_NAMES)
    ):
        far = replace(there.item.far, name=wanted.far.name)
        return replace(there, item=replace(there.item, far=far))
    return there
