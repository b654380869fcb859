"""ICMP echo from an address inside a network namespace, without a child process.

The sockets are opened by a thread of their own that enters the namespace and ends; nothing of us stays in the
namespace between two checks, so that a workload's namespace can go whenever it wants.
"""

import asyncio
import ctypes
import os
import secrets
import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from controlplane.workload import OWN_NETNS

Address = IPv4Address | IPv6Address

PACKETS: Final = 4
"""Echo requests of one check; a pair is silent when none is answered (reference §3.7)."""

_CLONE_NEWNET: Final = 0x40000000
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_ECHO: Final = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}
_NONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Echo:
    """A socket bound to ``source``; ``raw`` = IPv4 answers carry their IP header."""

    socket: socket.socket
    source: Address
    target: Address
    raw: bool

    async def answered(self, within: float) -> bool:
        """Whether any of ``PACKETS`` requests is answered within ``within`` seconds."""
        loop = asyncio.get_running_loop()
        slot = within / PACKETS
        for number in range(PACKETS):
            ends = loop.time() + slot
            nonce = secrets.token_bytes(_NONCE)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    if await self._exchange(number, nonce):
                        return True
                    await asyncio.sleep(slot)  # the network said no at once: the rest of the slot passes
        return False

    async def _exchange(self, number: int, nonce: bytes) -> bool:
        loop = asyncio.get_running_loop()
        request, reply = _ECHO[self.socket.family]
        try:
            await loop.sock_sendto(self.socket, _packet(request, number, nonce), (str(self.target), 0))
            while True:
                packet = await loop.sock_recv(self.socket, 2048)
                if self.raw and self.socket.family == socket.AF_INET and packet:
                    packet = packet[(packet[0] & 0x0F) * 4 :]
                if packet[:1] == bytes([reply]) and packet[8 : 8 + _NONCE] == nonce:
                    return True
        except OSError:  # unreachable, refused, address gone: as good as silence
            return False


async def silent_pair(
    netns: Path, pairs: Sequence[tuple[Address, Address]], within: float
) -> tuple[Address, Address] | None:
    """The first pair (source, target) without an answer ``within`` so many seconds; ``None`` = all answered.

    Raises OSError when the namespace cannot be entered, or one of the sources is not there any more.
    """
    echoes = await _opened(netns, pairs)
    try:
        results = await asyncio.gather(*(echo.answered(within) for echo in echoes))
    finally:
        for echo in echoes:
            echo.socket.close()
    return next(
        ((echo.source, echo.target) for echo, ok in zip(echoes, results, strict=True) if not ok), None
    )


async def _opened(netns: Path, pairs: Sequence[tuple[Address, Address]]) -> list[Echo]:
    """The sockets, opened inside ``netns`` by a thread that does nothing else; our own namespace needs none."""
    if netns == OWN_NETNS:
        return _open_all(pairs)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Echo]] = loop.create_future()

    def deliver(echoes: list[Echo], error: OSError | None) -> None:
        if future.done():  # the check was given up meanwhile
            for echo in echoes:
                echo.socket.close()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(echoes)

    def work() -> None:
        echoes: list[Echo] = []
        error: OSError | None = None
        try:
            _enter(netns)
            echoes = _open_all(pairs)
        except OSError as problem:
            error = problem
        try:
            loop.call_soon_threadsafe(deliver, echoes, error)
        except RuntimeError:  # the loop has ended
            for echo in echoes:
                echo.socket.close()

    threading.Thread(target=work, name="ping", daemon=True).start()
    return await future


def _open_all(pairs: Sequence[tuple[Address, Address]]) -> list[Echo]:
    echoes: list[Echo] = []
    try:
        for source, target in pairs:
            echoes.append(_open(source, target))
    except OSError:
        for echo in echoes:
            echo.socket.close()
        raise
    return echoes


def _enter(netns: Path) -> None:
    target = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.setns(target, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(netns))
    finally:
        os.close(target)


def _open(source: Address, target: Address) -> Echo:
    """A ping socket; a raw one where the namespace's ``ping_group_range`` does not allow that."""
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if source.version == 4 else socket.IPPROTO_ICMPV6
    raw = False
    try:
        opened = socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        opened = socket.socket(family, socket.SOCK_RAW, protocol)
        raw = True
    try:
        opened.setblocking(False)
        opened.bind((str(source), 0))
    except OSError:
        opened.close()
        raise
    return Echo(opened, source, target, raw)


def _packet(kind: int, number: int, nonce: bytes) -> bytes:
    """An echo request; the kernel writes the identifier of ping sockets and every IPv6 checksum."""
    identifier = os.getpid() & 0xFFFF
    draft = struct.pack("!BBHHH", kind, 0, 0, identifier, number) + nonce
    return struct.pack("!BBHHH", kind, 0, _checksum(draft), identifier, number) + nonce


def _checksum(data: bytes) -> int:
    """RFC 1071, for raw IPv4 sockets."""
    words: tuple[int, ...] = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    total += total >> 16
    return ~total & 0xFFFF
