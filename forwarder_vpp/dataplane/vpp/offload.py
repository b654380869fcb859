"""Makes a workload's link write its own checksums, where VPP would spoil what is left for it to write.

VPP 26.06 keeps the wish for a checksum on a packet that WireGuard has encrypted, and writes it into the
ciphertext at the uplink (docs/vpp-notes.md). A link that writes checksums also cuts large segments itself, at its
very end: the workload's TCP goes on making them, which is what keeps it fast.
"""

import ctypes
import fcntl
import socket
import struct
from typing import Any, Final

from forwarder_vpp.dataplane.contract.items import Handles
from forwarder_vpp.dataplane.netlink.namespaces import NodeNetlink
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.veth import Veth, VethDescriptor
from nsm.model.errors import Code, NsmError

_SIOCETHTOOL: Final = 0x8946
_SET_TX_CHECKSUM: Final = 0x17


def own_checksums(interface: str) -> None:
    """In the calling thread's namespace: no checksum of ``interface`` is left to others, nor any large segment."""
    value = ctypes.create_string_buffer(struct.pack("II", _SET_TX_CHECKSUM, 0))
    request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
        except OSError as error:
            message = f"checksum offload of {interface} cannot be turned off: {error.strerror}"
            raise NsmError(Code.INTERNAL, message) from error


class TunnelVeths(VethDescriptor):
    """``VethDescriptor`` that also does this for the links that lead to a tunnel."""

    def __init__(self, netlink: NodeNetlink) -> None:
        super().__init__(netlink)
        self._namespaces = netlink

    async def create(self, item: Veth, handles: Handles) -> Any:
        """The pair; a failure removes it again."""
        made = await super().create(item, handles)
        if item.large_segments:
            return made

        def work(_: Session) -> None:
            own_checksums(item.near.name)

        try:
            await self._namespaces.inside(item.near.netns, work)
        except BaseException:
            await self.delete(item, made, handles)
            raise
        return made
