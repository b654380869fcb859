"""A copy of the registry, kept current by two watches, so that a Request seldom has to ask it.

While the watches stand, what the copy has is answered from it; what it has not is asked for. While they are down the
registry is asked first, and only if it cannot be reached the copy answers: clients of known services go on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final, Generic, TypeVar

import structlog

from controlplane.registry.watch import Hub
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.service.registry import RegistryClient
from nsm.session.matching import endpoint_matches, service_matches
from nsm.session.timing import RETRY_DELAY

LONGEST_PAUSE: Final = 1.0
"""Seconds between tries of a registry that is away or refuses us; it keeps a record of each of those."""

AWAY: Final = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})
_LOG: Final = structlog.get_logger()

T = TypeVar("T", NetworkService, NetworkServiceEndpoint)


class _Half(Generic[T]):
    """The copy of one kind of entry. ``seen``: what this watch has confirmed."""

    def __init__(self, matches: Callable[[T, T], bool]) -> None:
        self.matches: Callable[[T, T], bool] = matches
        self.entries: dict[str, T] = {}
        self.hub: Hub[T] = Hub()
        self._seen: set[str] = set()

    def begin(self) -> None:
        """A new watch was opened: nothing is confirmed."""
        self._seen.clear()

    def put(self, entry: T, *, deleted: bool = False) -> None:
        """One change."""
        self._seen.add(entry.name)
        if deleted:
            self.entries.pop(entry.name, None)
        else:
            self.entries[entry.name] = entry
        self.hub.publish(entry.name, entry, deleted=deleted)

    def keep(self, listed: set[str]) -> None:
        """Drop what neither the watch nor a full list has: it went while we did not look."""
        for name in set(self.entries) - listed - self._seen:
            self.hub.publish(name, self.entries.pop(name), deleted=True)

    def find(self, query: T) -> list[T]:
        return [entry for entry in self.entries.values() if self.matches(query, entry)]


def _lost() -> NsmError:
    return NsmError(Code.UNAVAILABLE, "the registry went away; watch again")


class Mirror:
    """Services and endpoints of the registry as this manager knows them, URLs as the registry has them."""

    def __init__(
        self,
        registry: RegistryClient,
        *,
        retry_delay: float = RETRY_DELAY,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``retry_delay``: seconds before the first try after a loss; doubled by each failure up to LONGEST_PAUSE."""
        self._registry = registry
        self._retry_delay = retry_delay
        self._sleep = sleep
        self._services: _Half[NetworkService] = _Half(service_matches)
        self._endpoints: _Half[NetworkServiceEndpoint] = _Half(endpoint_matches)
        self._current = asyncio.Event()
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[], None]] = []

    @property
    def is_current(self) -> bool:
        """Whether both watches stand and the copy is complete."""
        return self._current.is_set()

    @property
    def services(self) -> Mapping[str, NetworkService]:
        """By name, as last known."""
        return self._services.entries

    @property
    def endpoints(self) -> Mapping[str, NetworkServiceEndpoint]:
        """By name, as last known."""
        return self._endpoints.entries

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every change while the copy is current, and when it becomes so."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Follow the registry in the background."""
        self._task = asyncio.create_task(self._run(), name="mirror of the registry")
        self._task.add_done_callback(_report)

    async def settled(self) -> None:
        """Wait until the first try to copy the registry succeeded or failed."""
        await self._settled.wait()

    async def stop(self) -> None:
        """Stop following; open watches of the copy end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self._services.hub.end(None)
        self._endpoints.hub.end(None)

    def put_service(self, service: NetworkService) -> None:
        """What the registry just answered; its watch will say the same."""
        self._services.put(service)

    def put_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        """As ``put_service``."""
        self._endpoints.put(endpoint)

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        """Every service the query matches. Raises what the registry answered when neither knows one."""
        return await self._find(self._services, query, self._registry.find_services)

    async def find_endpoints(self, query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        """Every endpoint the query matches, as ``find_services``."""
        return await self._find(self._endpoints, query, self._registry.find_endpoints)

    def watch_services(self, query: NetworkService) -> AsyncIterator[tuple[NetworkService, bool]]:
        """(service, deleted) of what matches now, then of every change; UNAVAILABLE when the registry goes away."""
        return self._watch(self._services, query)

    def watch_endpoints(
        self, query: NetworkServiceEndpoint
    ) -> AsyncIterator[tuple[NetworkServiceEndpoint, bool]]:
        """As ``watch_services``."""
        return self._watch(self._endpoints, query)

    async def _find(self, half: _Half[T], query: T, ask: Callable[[T], Awaitable[list[T]]]) -> list[T]:
        known = half.find(query)
        if known and self.is_current:
            return known
        try:
            return await ask(query)
        except NsmError as error:
            if known and error.code in AWAY:
                return half.find(query)
            raise

    async def _watch(self, half: _Half[T], query: T) -> AsyncIterator[tuple[T, bool]]:
        await self.settled()
        if not self.is_current:
            raise _lost()
        current = tuple(half.entries.items())
        async for change in half.hub.watch(current, lambda entry: half.matches(query, entry)):
            yield change

    async def _run(self) -> None:
        logged, pause = "", self._retry_delay
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._follow_services())
                    group.create_task(self._follow_endpoints())
                    group.create_task(self._complete())
            except* NsmError as errors:
                reason = str(errors.exceptions[0])
                if self.is_current:
                    pause = self._retry_delay
                if self.is_current or reason != logged:
                    _LOG.warning("registry.away", url=self._registry.url, error=reason)
                logged = reason
            finally:
                self._lost()
            await self._sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    async def _follow_services(self) -> None:
        self._services.begin()
        async with aclosing(self._registry.watch_services(NetworkService())) as events:
            async for event in events:
                self._services.put(event.network_service, deleted=event.deleted)
                self._tell()
        raise _lost()

    async def _follow_endpoints(self) -> None:
        self._endpoints.begin()
        async with aclosing(
            self._registry.watch_endpoints(NetworkServiceEndpoint(), sockets=False)
        ) as events:
            async for event in events:
                self._endpoints.put(event.network_service_endpoint, deleted=event.deleted)
                self._tell()
        raise _lost()

    async def _complete(self) -> None:
        """No message says where the first part of a watch ends, so a plain Find says what there is."""
        services = await self._registry.find_services(NetworkService())
        endpoints = await self._registry.find_endpoints(NetworkServiceEndpoint())
        for service in services:
            if service.name not in self._services.entries:
                self._services.put(service)
        for endpoint in endpoints:
            if endpoint.name not in self._endpoints.entries:
                self._endpoints.put(endpoint)
        self._services.keep({service.name for service in services})
        self._endpoints.keep({endpoint.name for endpoint in endpoints})
        self._current.set()
        self._settled.set()
        _LOG.info("registry.mirrored", services=len(services), endpoints=len(endpoints))
        self._tell()

    def _lost(self) -> None:
        was_current = self.is_current
        self._current.clear()
        self._settled.set()
        if was_current:
            self._services.hub.end(_lost())
            self._endpoints.hub.end(_lost())

    def _tell(self) -> None:
        if self.is_current:
            for listener in self._listeners:
                listener()


def _report(task: asyncio.Task[None]) -> None:
    """It only ends by being cancelled; anything else is our fault and must be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("mirror.died", exc_info=error)
