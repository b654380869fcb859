"""Is the data path of a connection alive: a ping from every address of ours to every one of the endpoint's."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from controlplane.client.ping import Address, silent_pair
from controlplane.endpoint.prefixes import parse_address
from nsm.model.connection import Connection
from nsm.model.mechanism import KERNEL


@dataclass(frozen=True, slots=True)
class Liveness:
    """The check of reference §3.7: every ``interval`` seconds, each with ``timeout`` seconds to be answered."""

    netns: Path
    interval: float = 0.2
    timeout: float = 1.0

    async def alive(self, connection: Connection) -> bool:
        """One check; a connection without addresses, or not of the kernel mechanism, counts as alive."""
        pairs = pairs_of(connection)
        if not pairs:
            return True
        log = structlog.get_logger().bind(connection=connection.id)
        try:
            silent = await silent_pair(self.netns, pairs, self.timeout)
        except OSError as error:
            log.warning("liveness.impossible", reason=str(error))
            return False
        if silent is not None:
            log.warning("liveness.silent", source=str(silent[0]), target=str(silent[1]))
        return silent is None

    async def failed(self, current: Callable[[], Connection]) -> None:
        """Return when a check of the connection, as it is at each check, has failed."""
        while await self.alive(current()):  # noqa: ASYNC110 - a pace, not a wait for an event
            await asyncio.sleep(self.interval)


def pairs_of(connection: Connection) -> tuple[tuple[Address, Address], ...]:
    """Every (source, target) of one family; none for another mechanism than KERNEL."""
    if connection.mechanism is None or connection.mechanism.type != KERNEL:
        return ()
    sources = [address for text in connection.ip.src_ip_addrs if (address := parse_address(text))]
    targets = [address for text in connection.ip.dst_ip_addrs if (address := parse_address(text))]
    return tuple((src, dst) for src in sources for dst in targets if src.version == dst.version)
