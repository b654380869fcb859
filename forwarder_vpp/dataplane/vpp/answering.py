"""Looks after handshakes that somebody else waits for: a Go forwarder that asked us, which only waits."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from forwarder_vpp.dataplane.contract.items import Key
from nsm.model.errors import NsmError

from .waiting import Waiting

PATIENCE: Final = 2.0
"""Seconds until VPP begins anew: the asking side has yet to make its end, and may wait there as we do."""

_log = structlog.get_logger(__name__)


class Answering:
    """Behind the answer to a Request, for as long as ``known`` has the tunnel as it was."""

    def __init__(self, waiting: Waiting, known: Mapping[Key, int], patience: float = PATIENCE) -> None:
        self._waiting = waiting
        self._known = known
        self._patience = patience
        self._tasks: set[asyncio.Task[None]] = set()

    def look_after(self, interface: Key, peer: Key) -> None:
        """Until the peer has shaken hands or is gone."""
        task = asyncio.create_task(self._established(interface, peer), name=f"handshake {peer}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leave them to themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _established(self, interface: Key, peer: Key) -> None:
        places = self._known.get(interface), self._known.get(peer)
        index, number = places
        if index is None or number is None:
            return

        def is_there() -> bool:
            return (self._known.get(interface), self._known.get(peer)) == places

        try:
            await self._waiting.established(index, number, self._patience, is_there)
        except NsmError as error:
            _log.info("wireguard.not_looked_after", peer=str(peer), reason=str(error))
