"""One client process: each connection with an interface of its own in one namespace, every call timed.

The calls are those of ``nsm-client`` (its manager's half: policies, monitor stream, descriptor of the namespace), but
nothing is repeated: a call that fails is a sample with an error.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.client.manager import NsmManager
from controlplane.client.settings import ClientSettings
from controlplane.client.wish import Wish
from controlplane.workload import file_url
from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.service.daemon import open_node
from nsmctl.lab.probes import Flow
from nsmctl.lab.topology import Node

DEADLINE: Final = 15.0
"""Seconds NSM gives a Request."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One call: connection number, seconds it took, the reason if it failed."""

    number: int
    seconds: float
    error: str = ""


Operation = Callable[[int], Awaitable[Sample]]


class Driver:
    """Connections by number, from 0. ``managers`` are used in turn: one identity each."""

    def __init__(self, managers: Sequence[tuple[str, NsmManager]], service: str, netns: Path) -> None:
        self._managers = managers
        self._service = service
        self._netns = netns
        self.connections: dict[int, Connection] = {}

    async def request(self, number: int) -> Sample:
        """Ask for a new connection."""
        wish, manager = self._wish(number)
        return await self._timed(number, self._ask(number, wish, manager, wish.first()))

    async def refresh(self, number: int) -> Sample:
        """Ask again for one that is there."""
        wish, manager = self._wish(number)
        return await self._timed(number, self._ask(number, wish, manager, self.connections[number]))

    async def close(self, number: int) -> Sample:
        """Close one that is there; when that fails it stays, for another try."""
        wish, manager = self._wish(number)
        deadline = asyncio.get_running_loop().time() + DEADLINE
        sample = await self._timed(number, manager.close(wish, self.connections[number], deadline=deadline))
        if not sample.error:
            del self.connections[number]
            manager.forget(wish.id)
        return sample

    async def one_by_one(self, operation: Operation, numbers: Iterable[int]) -> list[Sample]:
        """One after the other."""
        return [await operation(number) for number in numbers]

    async def at_once(self, operation: Operation, numbers: Iterable[int]) -> list[Sample]:
        """All together."""
        return list(await asyncio.gather(*(operation(number) for number in numbers)))

    async def close_all(self) -> list[Sample]:
        """Close whatever is there, at once."""
        return await self.at_once(self.close, tuple(self.connections))

    def flows(self, port: int = 4242) -> list[Flow]:
        """A flow for every address family of every connection, bound to its interface at the client's end."""
        return [
            Flow(source.partition("/")[0], target.partition("/")[0], port, client_device=f"nsm-{number}")
            for number, connection in sorted(self.connections.items())
            for source in connection.ip.src_ip_addrs
            for target in connection.ip.dst_ip_addrs
            if (":" in source) == (":" in target)
        ]

    async def _ask(self, number: int, wish: Wish, manager: NsmManager, connection: Connection) -> None:
        deadline = asyncio.get_running_loop().time() + DEADLINE
        answer = await manager.request(wish, connection, deadline=deadline)
        self.connections[number] = wish.ours(answer)

    async def _timed(self, number: int, call: Awaitable[None]) -> Sample:
        clock = asyncio.get_running_loop().time
        start = clock()
        try:
            await call
        except NsmError as error:
            return Sample(number, clock() - start, str(error))
        except TimeoutError:
            return Sample(number, clock() - start, f"{Code.DEADLINE_EXCEEDED.name}: no answer in time")
        return Sample(number, clock() - start)

    def _wish(self, number: int) -> tuple[Wish, NsmManager]:
        name, manager = self._managers[number % len(self._managers)]
        wish = Wish(
            name=name,
            id=f"{name}-{number}",
            service=self._service,
            interface=f"nsm-{number}",
            netns=file_url(self._netns),
        )
        return wish, manager


@asynccontextmanager
async def driver(node: Node, names: Sequence[str], service: str, netns: Path) -> AsyncIterator[Driver]:
    """A driver at the manager of ``node`` with the identities ``names``; what it leaves open is closed at the end."""
    async with AsyncExitStack() as stack:
        managers = []
        for name in names:
            settings = ClientSettings(name=name, connect_to=node.manager, identity_dir=str(node.identities))
            opened = await stack.enter_async_context(open_node(settings))
            manager = NsmManager(name, settings.connect_to, opened, lambda _id, _connection: None)
            stack.push_async_callback(manager.stop)
            managers.append((name, manager))
        made = Driver(managers, service, netns)
        try:
            yield made
        finally:
            await made.close_all()
