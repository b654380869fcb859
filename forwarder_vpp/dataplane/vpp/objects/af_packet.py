"""An interface of VPP on a kernel link: the node's end of a workload's veth, or the NIC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.errors import GONE
from forwarder_vpp.dataplane.vpp.messages import af_packet as api

from .inventory import Found, inventory
from .keys import AF_PACKET
from .outcome import remove

_PAGE = 4096
_AROUND = 128  # bytes of a frame that are not the IP packet: the ring's header, the offload header, Ethernet
_GONE = GONE | {"SYSCALL_ERROR_1"}  # af_packet_delete's answer for a name it does not know


@dataclass(frozen=True, slots=True)
class Ring:
    """Sizes of both rings: ``frame`` bytes each, ``frames`` in number.

    A frame must hold the largest segment of the kernel (64 KiB and headers) or TCP stalls; the number
    trades unswappable memory for loss while VPP stands still. The kernel rounds each ring up to a power of two, so
    62 frames take 4 MiB and 64 take 8 (docs/vpp-notes.md).
    """

    frame: int = 67584
    frames: int = 62
    flags: int = api.VERSION_2 | api.CKSUM_GSO | api.QDISC_BYPASS


def filled(frame: int, size: int) -> Ring:
    """As many frames as fit into ``size`` bytes; together they must be whole pages."""
    frames = size // frame
    while frames * frame % _PAGE:
        frames -= 1
    return Ring(frame, frames)


def ring_of_packets(mtu: int) -> Ring:
    """For a link without large segments: a frame holds one packet of ``mtu`` bytes, many of them 2 or 4 MiB."""
    for frame in (2048, 4096):
        if mtu + _AROUND <= frame:
            return filled(frame, 2 << 20)
    return filled(10240, 4 << 20)


@dataclass(frozen=True, slots=True)
class AfPacket:
    """``link`` is the kernel's name, ``mac`` VPP's hardware address on it; ``needs`` makes the link."""

    link: str
    mac: str
    ring: Ring = Ring()
    needs: Key | None = None

    @property
    def key(self) -> Key:
        """By the kernel's name, of which VPP allows one."""
        return Key(AF_PACKET, self.link)

    @property
    def requires(self) -> tuple[Key, ...]:
        """The link."""
        return (self.needs,) if self.needs else ()


class AfPackets:
    """Descriptor of ``AfPacket``; the handle is the ``sw_if_index``."""

    kind = AF_PACKET

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: AfPacket, handles: Handles) -> object:
        """One message; VPP raises the link and stands still for some 35 ms."""
        request = api.AfPacketCreate(
            mode=api.MODE_ETHERNET,
            hw_addr=bytes.fromhex(item.mac.replace(":", "")),
            use_random_hw_addr=False,
            host_if_name=item.link,
            rx_frame_size=item.ring.frame,
            tx_frame_size=item.ring.frame,
            rx_frames_per_block=item.ring.frames,
            tx_frames_per_block=item.ring.frames,
            flags=item.ring.flags,
        )
        made = await self._vpp.create(request, lambda _: api.AfPacketDelete(host_if_name=item.link))
        return made.sw_if_index

    def updatable(self, old: AfPacket, new: AfPacket) -> bool:
        """More frames are taken over with the next creation; larger ones and another address need one."""
        return old.link == new.link and old.mac == new.mac and new.ring.frame <= old.ring.frame

    async def update(self, old: AfPacket, new: AfPacket, handle: object, handles: Handles) -> object:
        """Nothing VPP could change. The frames are still those of ``old``, which ``new`` fits into."""
        return handle

    async def delete(self, item: AfPacket, handle: object, handles: Handles) -> None:
        """By the kernel's name."""
        await remove(self._vpp, api.AfPacketDelete(host_if_name=item.link), gone=_GONE)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Tagged ones and those on a wanted link; the rings' sizes cannot be asked for."""
        found = await inventory(self._vpp)
        return [
            self._present(each, wanted.get(each.key))
            for each in found.by_index.values()
            if each.key.kind == AF_PACKET and (each.owner or each.key in wanted)
        ]

    def _present(self, found: Found, wanted: Item | None) -> Present:
        known = wanted if isinstance(wanted, AfPacket) else AfPacket(found.key.id, "")
        item = AfPacket(found.key.id, found.common.l2_address.hex(":"), known.ring, known.needs)
        return Present(found.key, item, found.index, found.owner)
