"""Waits for VPP to say that an interface is up or a WireGuard peer has shaken hands: by event, never by polling.

A handshake that both sides begin at one moment comes to nothing: each takes the other's initiation for the newer
one, forgets its own and refuses the response to it. Both then rest for WireGuard's 5 s, often to meet again. VPP begins
by itself within 0.34 s of an interface's rise, in steps of 10 ms, so this is no rare thing (docs/vpp-notes.md). Hence
whoever waits here does not wait that long but has VPP begin anew, alone this time.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

import structlog

from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages.interface import (
    ADMIN_UP,
    LINK_UP,
    InterfaceDump,
    InterfaceEvent,
    InterfaceFlags,
    WantInterfaceEvents,
)
from forwarder_vpp.dataplane.vpp.messages.wireguard import (
    DEAD,
    ESTABLISHED,
    PeerDump,
    PeerEvent,
    WantPeerEvents,
)
from forwarder_vpp.dataplane.vpp.objects.outcome import together
from forwarder_vpp.dataplane.vpp.session import VppSession

PATIENCE: Final = 0.5
"""Seconds from an interface's rise to a handshake that was not in vain; twice as long after each try, so that a slow
path gets its turn."""

_log = structlog.get_logger(__name__)


class Waiting:
    """Flags of interfaces and peers as of their last event; ``pid`` is ours, VPP echoes it.

    A peer is among ``_peers`` from the moment VPP tells of it, which is that of its making if we made it: VPP says
    whatever becomes of its flags from then on, its end last.
    """

    def __init__(self, vpp: Vpp, pid: int) -> None:
        self._vpp = vpp
        self._pid = pid
        self._links: dict[int, int] = {}
        self._peers: dict[int, int] = {}
        self._for_links: dict[int, set[asyncio.Future[None]]] = {}
        self._for_peers: dict[int, set[asyncio.Future[None]]] = {}

    async def subscribe(self, session: VppSession) -> None:
        """Ask for the events, now and after every connect."""
        want = WantInterfaceEvents(enable_disable=1, pid=self._pid)
        await session.subscribe(InterfaceEvent, self._interface_event, want)
        await session.subscribe(PeerEvent, self._peer_event)

    def forget(self) -> None:
        """VPP is another one: what is known of the old one means nothing."""
        self._links.clear()
        self._peers.clear()

    def peer_made(self, peer: int) -> None:
        """Its events were asked for in the turn that made it; some may have come before its maker could say so."""
        self._peers.setdefault(peer, 0)

    async def link_up(self, index: int) -> None:
        """Until the interface has its link."""
        if self._links.get(index, 0) & LINK_UP:
            return
        with _Place(self._for_links, index) as arrived:
            found = await self._vpp.dump(InterfaceDump(sw_if_index=index))
            if not any(each.flags & LINK_UP for each in found):
                await arrived

    async def established(
        self, index: int, peer: int, patience: float = PATIENCE, is_there: Callable[[], bool] = lambda: True
    ) -> None:
        """Until peer ``peer`` of interface ``index`` has a session; VPP begins anew after ``patience`` seconds.

        Down and up in one turn: VPP forgets the exchange and its time to rest, the peer keeps its index.
        Ends without one when ``is_there`` no longer holds. NsmError: VPP has no such interface.
        """
        for tried in itertools.count():
            with _Place(self._for_peers, peer) as arrived:
                if await self._has_session(index, peer, ask=tried > 0):
                    return
                if await _within(patience * 2**tried, arrived):
                    return
            if not is_there():
                return
            _log.info("wireguard.begun_anew", sw_if_index=index, peer_index=peer, tries=tried + 1)
            await together(self._vpp, [InterfaceFlags(index, 0), InterfaceFlags(index, ADMIN_UP)])

    async def _has_session(self, index: int, peer: int, *, ask: bool) -> bool:
        """As the events say; VPP is asked for them and for the state of a peer that it has not told of."""
        flags = self._peers.get(peer)
        if flags is not None and not ask:
            return bool(flags & ESTABLISHED)
        want = self._vpp.call(WantPeerEvents(index, peer, 1, self._pid))
        _, found = await asyncio.gather(want, self._vpp.dump(PeerDump(peer_index=peer)))  # in this order
        return any(each.flags & ESTABLISHED for each in found)

    def _interface_event(self, event: InterfaceEvent) -> None:
        if event.deleted:
            self._links.pop(event.sw_if_index, None)
            return
        self._links[event.sw_if_index] = event.flags
        if event.flags & LINK_UP:
            _wake(self._for_links, event.sw_if_index)

    def _peer_event(self, event: PeerEvent) -> None:
        if event.flags & DEAD:
            self._peers.pop(event.peer_index, None)
            return
        self._peers[event.peer_index] = event.flags
        if event.flags & ESTABLISHED:
            _wake(self._for_peers, event.peer_index)


class _Place:
    """One waiter in a table of waiters, removed whatever happens."""

    def __init__(self, table: dict[int, set[asyncio.Future[None]]], index: int) -> None:
        self._table = table
        self._index = index
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> "asyncio.Future[None]":
        self._table.setdefault(self._index, set()).add(self._future)
        return self._future

    def __exit__(self, *_: object) -> None:
        waiters = self._table.get(self._index, set())
        waiters.discard(self._future)
        if not waiters:
            self._table.pop(self._index, None)
        self._future.cancel()


async def _within(seconds: float, arrived: "asyncio.Future[None]") -> bool:
    """Whether it has arrived before ``seconds`` were over."""
    done, _ = await asyncio.wait([arrived], timeout=seconds)
    return bool(done)


def _wake(table: dict[int, set[asyncio.Future[None]]], index: int) -> None:
    for future in table.get(index, ()):
        if not future.done():
            future.set_result(None)
