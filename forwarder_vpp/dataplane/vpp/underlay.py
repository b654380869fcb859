"""What the kernel knows of the NIC that owns the tunnel address: read, and followed when it changes."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from forwarder_vpp.dataplane.netlink import wire
from forwarder_vpp.dataplane.netlink.session import Session
from nsm.model.errors import Code, NsmError

_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE: Final = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
_NEIGHBOUR: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type

_SCOPE_LINK: Final = 253
_MADE_BY_KERNEL: Final = 2
_KNOWN_STATES: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # reachable, stale, delay, probe, permanent
_RTM_F_CLONED: Final = 0x200
_GROUPS: Final = (1, 3, 5, 7, 9, 11)  # link, neighbour, IPv4 and IPv6 address, IPv4 and IPv6 route
_SETTLE: Final = 0.05  # seconds: one change of the kernel is many messages


@dataclass(frozen=True, slots=True)
class Underlay:
    """``link`` by name, ``mtu`` in bytes, ``addresses`` with length.

    ``routes`` are (prefix, next hop or empty), ``neighbours`` (address, MAC).
    """

    link: str
    mac: str
    mtu: int
    addresses: tuple[str, ...]
    routes: tuple[tuple[str, str], ...] = ()
    neighbours: tuple[tuple[str, str], ...] = ()


def read_underlay(session: Session, tunnel_ip: str) -> Underlay:
    """Blocking. NsmError FAILED_PRECONDITION: no link owns ``tunnel_ip``."""
    addresses = _addresses(session)
    wanted = ip_address(tunnel_ip)
    index = next((i for i, text in addresses if ip_address(text.partition("/")[0]) == wanted), None)
    if index is None:
        message = f"no network interface of this node has the address {tunnel_ip}"
        raise NsmError(Code.FAILED_PRECONDITION, message, field="tunnel_ip")
    link, mac, mtu = _link(session, index)
    own = tuple(sorted(text for i, text in addresses if i == index))
    return Underlay(link, mac, mtu, own, _routes(session, index), _neighbours(session, index))


def _link(session: Session, index: int) -> tuple[str, str, int]:
    for body in session.dump(wire.Message(wire.RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0)), "listing links"):
        if _LINK.unpack_from(body)[2] == index:
            facts = wire.unpack(body[_LINK.size :])
            mac = facts.get(wire.IFLA_ADDRESS, b"").hex(":")
            return wire.string(facts, wire.IFLA_IFNAME), mac, wire.number(facts, wire.IFLA_MTU)
    raise NsmError(Code.FAILED_PRECONDITION, f"link {index} is gone", field="tunnel_ip")


def _addresses(session: Session) -> list[tuple[int, str]]:
    found = []
    message = wire.Message(wire.RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0))
    for body in session.dump(message, "listing addresses"):
        _, length, _, scope, index = _ADDRESS.unpack_from(body)
        facts = wire.unpack(body[_ADDRESS.size :])
        data = facts.get(wire.IFA_LOCAL) or facts.get(wire.IFA_ADDRESS)
        if data and scope < _SCOPE_LINK:
            found.append((index, f"{ip_address(data)}/{length}"))
    return found


def _routes(session: Session, index: int) -> tuple[tuple[str, str], ...]:
    """Of the main table over one link; what VPP derives from addresses by itself is left out."""
    found = []
    message = wire.Message(wire.RTM_GETROUTE, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))
    for body in session.dump(message, "listing routes"):
        family, length, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(body)
        facts = wire.unpack(body[_ROUTE.size :])
        own = wire.number(facts, wire.RTA_OIF) == index and table == wire.RT_TABLE_MAIN
        if not own or kind != wire.RTN_UNICAST or flags & _RTM_F_CLONED or protocol == _MADE_BY_KERNEL:
            continue
        zero = bytes(4 if family == socket.AF_INET else 16)
        gateway = facts.get(wire.RTA_GATEWAY)
        prefix = f"{ip_address(facts.get(wire.RTA_DST, zero))}/{length}"
        found.append((prefix, str(ip_address(gateway)) if gateway else ""))
    return tuple(sorted(dict(reversed(found)).items()))


def _neighbours(session: Session, index: int) -> tuple[tuple[str, str], ...]:
    found = []
    message = wire.Message(wire.RTM_GETNEIGH, _NEIGHBOUR.pack(0, 0, 0, 0, 0))
    for body in session.dump(message, "listing neighbours"):
        _, link, state, _, _ = _NEIGHBOUR.unpack_from(body)
        facts = wire.unpack(body[_NEIGHBOUR.size :])
        address, mac = facts.get(wire.NDA_DST), facts.get(wire.NDA_LLADDR)
        if (
            link == index
            and state & _KNOWN_STATES
            and address
            and mac
            and not ip_address(address).is_multicast
        ):
            found.append((str(ip_address(address)), mac.hex(":")))
    return tuple(sorted(found))


class UnderlayWatch:
    """Calls ``changed(underlay)`` whenever what the kernel knows of the uplink is another than before.

    A neighbour that the kernel forgets stays known: only another MAC or a new one is a change.
    """

    def __init__(self, tunnel_ip: str, first: Underlay, changed: Callable[[Underlay], None]) -> None:
        self.current = first
        self._tunnel_ip = tunnel_ip
        self._changed = changed
        self._session = Session()
        self._socket = self._session.listen(*_GROUPS)
        self._woken = asyncio.Event()
        self._task = asyncio.create_task(self._follow(), name="underlay")
        asyncio.get_running_loop().add_reader(self._socket, self._drain)

    def _drain(self) -> None:
        with contextlib.suppress(
            BlockingIOError, OSError
        ):  # OSError: the queue overflowed, so much has changed
            while self._socket.recv(1 << 16):
                pass
        self._woken.set()

    async def _follow(self) -> None:
        while True:
            await self._woken.wait()
            await asyncio.sleep(_SETTLE)
            self._woken.clear()
            try:
                found = await asyncio.to_thread(read_now, self._tunnel_ip)
            except NsmError:
                continue  # the address is away at this moment; what is known stays until it is back
            neighbours = tuple(sorted({**dict(self.current.neighbours), **dict(found.neighbours)}.items()))
            merged = Underlay(found.link, found.mac, found.mtu, found.addresses, found.routes, neighbours)
            if merged != self.current:
                self.current = merged
                self._changed(merged)

    async def close(self) -> None:
        """Stop following."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._session.close()


def read_now(tunnel_ip: str) -> Underlay:
    """``read_underlay`` with a socket of its own."""
    with Session() as session:
        return read_underlay(session, tunnel_ip)
