"""All connections of one client: the wanted set, changed while it runs, and what they have in common.

A connection keeps its id ``<name>-<index>`` while others come and go; a new one takes the lowest free index.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import structlog

from controlplane.client.excluded import prefixes_of
from controlplane.client.liveness import Liveness
from controlplane.client.manager import NsmManager
from controlplane.client.path_facts import facts
from controlplane.client.resolv_conf import ResolvConf, default_path
from controlplane.client.service_url import ServiceUrl
from controlplane.client.session import ClientSession, Phase
from controlplane.client.settings import ClientSettings
from controlplane.client.wish import Wish
from controlplane.workload import file_url, interface_name
from nsm.model.connection import Connection
from nsm.model.context import DnsConfig
from nsm.service.daemon import Node


class Client:
    """The sessions of one process. ``update`` sets what is wanted, ``stop`` closes everything."""

    def __init__(
        self,
        settings: ClientSettings,
        node: Node,
        *,
        on_change: Callable[[ClientSession], None] = lambda _session: None,
    ) -> None:
        self._settings = settings
        self._node = node
        self._on_change = on_change
        self._sessions: dict[int, tuple[ServiceUrl, ClientSession]] = {}
        self._leaving: set[int] = set()
        self._told: dict[str, Phase] = {}
        self._is_stopped = False
        self._death: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._manager = NsmManager(settings.name, settings.connect_to, node, self._news)
        self._dns = _dns_file(settings)
        self._log = structlog.get_logger()

    @property
    def sessions(self) -> tuple[ClientSession, ...]:
        """Those wanted now, by index."""
        return tuple(session for _, (_, session) in sorted(self._sessions.items()))

    async def update(self, services: Sequence[ServiceUrl]) -> tuple[list[str], list[str]]:
        """Want exactly these from now on: ids added and removed. What stays is not touched.

        Returns when the removed ones are closed; the added ones are still connecting.
        """
        wanted = [] if self._is_stopped else list(services)
        removed: dict[int, ClientSession] = {}
        for index, (url, session) in sorted(self._sessions.items()):
            if url in wanted:
                wanted.remove(url)
            else:
                removed[index] = session
                del self._sessions[index]
        self._leaving |= set(removed)  # their ids are free only after the Close
        added = [self._add(url) for url in wanted]
        await asyncio.gather(*(session.close() for session in removed.values()))
        self._leaving -= set(removed)
        self._apply_dns()
        return [session.wish.id for session in added], [session.wish.id for session in removed.values()]

    async def connected(self) -> None:
        """Wait until every connection wanted by then has been up."""
        while waiting := [session for session in self.sessions if not (session.was_up or session.is_closing)]:
            await asyncio.gather(*(session.connected() for session in waiting), return_exceptions=True)

    async def failed(self) -> None:
        """Never returns; raises what a session died of that was not asked to end."""
        await self._death

    async def stop(self) -> None:
        """Close every connection, give DNS back."""
        self._is_stopped = True
        await asyncio.gather(*(session.close() for session in self.sessions))
        self._sessions.clear()
        if self._dns is not None:
            self._write_dns(self._dns, ())
        await self._manager.stop()
        self._death.cancel()

    def _add(self, url: ServiceUrl) -> ClientSession:
        taken = self._leaving | set(self._sessions)
        index = next(number for number in range(len(taken) + 1) if number not in taken)
        settings = self._settings
        wish = Wish(
            name=settings.name,
            id=f"{settings.name}-{index}",
            service=url.service,
            interface=url.interface or interface_name(url.service),
            netns=file_url(settings.netns_file),
            mechanism=url.mechanism,
            labels={**settings.all_labels, **url.labels},
            any_interface=not url.interface,
        )
        session = ClientSession(
            wish,
            self._manager,
            liveness=self._liveness(),
            occupied=lambda: self._occupied(index),
            on_change=self._changed,
            request_timeout=settings.call_timeout,
            close_patience=settings.close_patience,
        )
        self._sessions[index] = (url, session)
        session.start().add_done_callback(self._ended)
        return session

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._death.done():
            self._death.set_exception(error)

    def _liveness(self) -> Liveness | None:
        settings = self._settings
        if not settings.liveness_check_enabled:
            return None
        return Liveness(
            settings.netns_file, settings.liveness_check_interval, settings.liveness_check_timeout
        )

    def _occupied(self, index: int) -> Iterable[str]:
        """The prefixes of all connections but that one."""
        for other, (_, session) in self._sessions.items():
            if other != index and session.connection is not None:
                yield from prefixes_of(session.connection)

    def _news(self, connection_id: str, connection: Connection) -> None:
        for _, session in self._sessions.values():
            if session.wish.id == connection_id:
                session.news(connection)

    def _changed(self, session: ClientSession) -> None:
        log = self._log.bind(connection=session.wish.id)
        match session.phase:
            case Phase.UP if session.connection is not None:
                log.info("connected", **facts(session.connection, self._node.verifier))
            case Phase.HEALING if self._told.get(session.wish.id) is not Phase.HEALING:
                log.warning("healing", service=session.wish.service, reason=session.reason)
            case Phase.CLOSED:
                log.info("closed", service=session.wish.service)
            case _:
                pass
        self._told[session.wish.id] = session.phase
        self._apply_dns()
        self._on_change(session)

    def _apply_dns(self) -> None:
        if self._dns is None:
            return
        configs = [
            config
            for session in self.sessions
            if session.connection is not None and session.connection.ctx.dns_context is not None
            for config in session.connection.ctx.dns_context.configs
        ]
        self._write_dns(self._dns, configs)

    def _write_dns(self, file: ResolvConf, configs: Sequence[DnsConfig]) -> None:
        try:
            file.apply(configs)
        except (OSError, UnicodeDecodeError) as error:
            self._log.error("dns.not_applied", file=str(file.path), reason=str(error))


def _dns_file(settings: ClientSettings) -> ResolvConf | None:
    if not settings.local_dns_server_enabled:
        return None
    path = Path(settings.resolv_conf) if settings.resolv_conf else default_path(settings.netns)
    return ResolvConf(path) if path else None
