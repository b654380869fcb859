"""Interface counters from VPP's stats segment: shared memory, no message, no barrier."""

import asyncio
from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from vpp_papi.vpp_stats import VPPStats

from forwarder_vpp.dataplane.contract.dataplane import Counters
from nsm.model.errors import Code, NsmError

_TIMEOUT = 5


class StatsSegment:
    """``socket`` hands out the segment; it is mapped anew for another VPP (``reset``)."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._stats: Any = None
        self._lock = Lock()

    async def read(self, indexes: Iterable[int]) -> Mapping[int, Counters]:
        """The counters of these interfaces. NsmError UNAVAILABLE: no segment."""
        wanted = tuple(indexes)
        return await asyncio.to_thread(self._read, wanted)

    def reset(self) -> None:
        """VPP is another one."""
        with self._lock:
            if self._stats is not None:
                self._stats.disconnect()
                self._stats = None

    def _read(self, indexes: tuple[int, ...]) -> Mapping[int, Counters]:
        with self._lock:
            try:
                if self._stats is None:
                    stats = VPPStats(self._socket, timeout=_TIMEOUT)
                    stats.connect()
                    self._stats = stats
                names = ("/if/rx", "/if/tx", "/if/drops")
                rx, tx, drops = (self._stats.get_counter(name) for name in names)
            except (OSError, KeyError) as error:
                message = f"VPP's stats segment on {self._socket}: {error}"
                raise NsmError(Code.UNAVAILABLE, message) from error
        return {index: _counters(index, rx, tx, drops) for index in indexes}


def _counters(index: int, rx: Any, tx: Any, drops: Any) -> Counters:
    """Summed over VPP's threads; an interface made since the vectors grew last has none yet."""
    received = [thread[index] for thread in rx if index < len(thread)]
    sent = [thread[index] for thread in tx if index < len(thread)]
    return Counters(
        rx_packets=sum(each[0] for each in received),
        tx_packets=sum(each[0] for each in sent),
        rx_bytes=sum(each[1] for each in received),
        tx_bytes=sum(each[1] for each in sent),
        drops=sum(thread[index] for thread in drops if index < len(thread)),
    )
