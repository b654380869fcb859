"""A tunnel's UDP port, kept from the kernel: nobody else may take it, and it must not be answered.

VPP reads the NIC beside the kernel, which sees every tunnel packet too and would answer ICMP port
unreachable. A socket that is bound to the port and whose filter takes nothing keeps it silent. It holds no
packet, changes no table, and goes with the agent; VPP does not mind the ICMP that the peer may get until the
next agent is there.
"""

import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from nsm.model.errors import Code, NsmError

from .keys import UDP_PORT

_SO_ATTACH_FILTER = 26
_RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # one BPF instruction: accept 0 bytes


@dataclass(frozen=True, slots=True)
class UdpPort:
    """``port`` on ``address``, shared by all tunnels that use it."""

    address: str
    port: int

    @property
    def key(self) -> Key:
        """``address:port``."""
        return Key(UDP_PORT, f"{self.address}:{self.port}")

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing."""
        return ()


class UdpPorts:
    """Descriptor of ``UdpPort``; the handle is the socket."""

    kind = UDP_PORT

    def __init__(self) -> None:
        self._held: dict[Key, tuple[UdpPort, socket.socket]] = {}

    async def create(self, item: UdpPort, handles: Handles) -> object:
        """Bind. NsmError RESOURCE_EXHAUSTED: another process on this host has the port."""
        family = socket.AF_INET6 if ":" in item.address else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_DGRAM)
        try:
            program = create_string_buffer(_RETURN_NOTHING)
            filter_ = struct.pack("HP", 1, addressof(program))
            bound.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
            bound.bind((item.address, item.port))
        except OSError as error:
            bound.close()
            message = f"expected UDP port {item.port} of {item.address} to be free: {error.strerror}"
            raise NsmError(Code.RESOURCE_EXHAUSTED, message, field="mechanism.parameters.src_port") from error
        self._held[item.key] = (item, bound)
        return bound

    def updatable(self, old: UdpPort, new: UdpPort) -> bool:
        """All facts are in the key."""
        return old == new

    async def update(self, old: UdpPort, new: UdpPort, handle: object, handles: Handles) -> object:
        """Nothing changes."""
        return handle

    async def delete(self, item: UdpPort, handle: object, handles: Handles) -> None:
        """Let go."""
        held = self._held.pop(item.key, None)
        if held is not None:
            held[1].close()

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """What this process holds: nobody else's counts."""
        return [Present(key, item, bound) for key, (item, bound) in self._held.items()]

    def close(self) -> None:
        """Let go of all."""
        for _, bound in self._held.values():
            with suppress(OSError):
                bound.close()
        self._held.clear()
