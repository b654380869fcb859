"""Closes a connection whose endpoint its service no longer selects (reference §3.11, netsvcmonitor).

An endpoint that is gone from the registry closes nothing: it may be alive while the registry is not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

import structlog

from controlplane.manager.mirror import Mirror
from nsm.model.connection import Connection
from nsm.session.matching import select_endpoints

_LOG: Final = structlog.get_logger()


class ServiceWatch:
    """Looks at every connection when the mirror changes, at most once a turn of the loop."""

    def __init__(
        self,
        mirror: Mirror,
        connections: Callable[[], Iterable[Connection]],
        close: Callable[[str], Awaitable[None]],
    ) -> None:
        """``close`` is called with the connection's id."""
        self._mirror = mirror
        self._connections = connections
        self._close = close
        self._closing: dict[str, asyncio.Task[None]] = {}
        self._is_due = False
        mirror.on_change(self._changed)

    def mismatched(self) -> list[Connection]:
        """The connections whose endpoint is known but not selected."""
        return [connection for connection in self._connections() if self._is_mismatch(connection)]

    async def stop(self) -> None:
        """Give up what is being closed."""
        for task in tuple(self._closing.values()):
            task.cancel()
        if self._closing:
            await asyncio.wait(self._closing.values())

    def _is_mismatch(self, connection: Connection) -> bool:
        service = self._mirror.services.get(connection.network_service)
        endpoint = self._mirror.endpoints.get(connection.network_service_endpoint_name)
        if service is None or endpoint is None:
            return False
        return not select_endpoints(service, (endpoint,), connection.labels)

    def _changed(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._check)

    def _check(self) -> None:
        self._is_due = False
        for connection in self.mismatched():
            if connection.id in self._closing:
                continue
            _LOG.warning(
                "connection.mismatch",
                reason="the service no longer selects the endpoint",
                connection=connection.id,
                service=connection.network_service,
                endpoint=connection.network_service_endpoint_name,
            )
            task = asyncio.ensure_future(self._close_one(connection.id))
            self._closing[connection.id] = task
            task.add_done_callback(partial(self._done, connection.id))

    async def _close_one(self, connection_id: str) -> None:
        await self._close(connection_id)

    def _done(self, connection_id: str, task: asyncio.Task[None]) -> None:
        self._closing.pop(connection_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("connection.close_failed", connection=connection_id, exc_info=error)
