"""An interface of VPP on a kernel link: the node's end of a workload's veth, or the NIC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.netlink.veth import far_name
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
    """``link`` is the kernel's name, ``mac`` VPP's hardware address on it; ``needs`` makes the link.

    With ``tag`` (which the interface's ``Port`` writes) it is known by that, and ``link`` is only what it is called
    if nothing else is said by the pair it stands on: one from the pool has a name of its own.
    """

    link: str = field(compare=False)
    mac: str
    ring: Ring = Ring()
    needs: Key | None = None
    tag: str = ""

    @property
    def key(self) -> Key:
        """By the tag, else by the kernel's name, of which VPP allows one."""
        return Key(AF_PACKET, self.tag or self.link)

    @property
    def requires(self) -> tuple[Key, ...]:
        """The link."""
        return (self.needs,) if self.needs else ()


class Index(int):
    """A ``sw_if_index``, and ``link``: the name VPP deletes the interface by, that of the link at its creation."""

    link: str

    def __new__(cls, index: int, link: str) -> Self:
        """``index`` on ``link``."""
        made = super().__new__(cls, index)
        made.link = link
        return made


def creation(link: str, mac: str, ring: Ring) -> api.AfPacketCreate:
    """The message that makes an interface on ``link``."""
    return api.AfPacketCreate(
        mode=api.MODE_ETHERNET,
        hw_addr=bytes.fromhex(mac.replace(":", "")),
        use_random_hw_addr=False,
        host_if_name=link,
        rx_frame_size=ring.frame,
        tx_frame_size=ring.frame,
        rx_frames_per_block=ring.frames,
        tx_frames_per_block=ring.frames,
        flags=ring.flags,
    )


async def delete(vpp: Vpp, link: str) -> None:
    """Remove the interface on ``link``; one that is gone already is fine."""
    await remove(vpp, api.AfPacketDelete(host_if_name=link), gone=_GONE)


class AfPackets:
    """Descriptor of ``AfPacket``; the handle is an ``Index``."""

    kind = AF_PACKET

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: AfPacket, handles: Handles) -> object:
        """One message; VPP raises the link and stands still for some 35 ms."""
        link = link_of(item, handles)
        request = creation(link, item.mac, item.ring)
        made = await self._vpp.create(request, lambda _: api.AfPacketDelete(host_if_name=link))
        return Index(made.sw_if_index, link)

    def updatable(self, old: AfPacket, new: AfPacket) -> bool:
        """More frames are taken over with the next creation; larger ones and another address need one."""
        return old.key == new.key and old.mac == new.mac and new.ring.frame <= old.ring.frame

    async def update(self, old: AfPacket, new: AfPacket, handle: object, handles: Handles) -> object:
        """Nothing VPP could change. The frames are still those of ``old``, which ``new`` fits into."""
        return handle

    async def delete(self, item: AfPacket, handle: object, handles: Handles) -> None:
        """By the name of its link."""
        await delete(self._vpp, handle.link if isinstance(handle, Index) else item.link)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Tagged ones and those on a wanted link; the rings' sizes cannot be asked for."""
        by_link = {item.link: item for item in wanted.values() if isinstance(item, AfPacket)}
        present = []
        for each in (await inventory(self._vpp)).by_index.values():
            if not isinstance(each.details, api.AfPacketDetails):
                continue
            link = each.details.host_if_name
            known = wanted.get(each.key) or (None if each.owner else by_link.get(link))
            if each.owner or known is not None:
                present.append(_present(each, link, known))
        return present


def link_of(item: AfPacket, handles: Handles) -> str:
    """What the link under ``item`` is called, whoever made it."""
    return (far_name(handles.handle(item.needs)) if item.needs else "") or item.link


def _present(found: Found, link: str, wanted: Item | None) -> Present:
    mac = found.common.l2_address.hex(":")
    if isinstance(wanted, AfPacket):
        item = AfPacket(link, mac, wanted.ring, wanted.needs, wanted.tag)
    else:
        item = AfPacket(link, mac, tag="" if found.key.id == link else found.key.id)
    return Present(item.key, item, Index(found.index, link), found.owner)
