"""The composition of ``forwarder-vpp``: the only file that knows every adapter."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import structlog

from forwarder_vpp.choice import choose, external_vpp, tunnel_ip
from forwarder_vpp.dataplane.contract.dataplane import Dataplane
from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.linux.dataplane import LinuxDataplane
from forwarder_vpp.dataplane.vpp.dataplane import VppDataplane, VppOptions
from forwarder_vpp.ignored import name_ignored
from forwarder_vpp.mechanisms.vxlan import PORT as VXLAN_PORT
from forwarder_vpp.mechanisms.wireguard import OWN_PORTS
from forwarder_vpp.mechanisms.wireguard import PORT as WIREGUARD_PORT
from forwarder_vpp.reconciler.reconciler import Reconciler
from forwarder_vpp.refusing import refusing
from forwarder_vpp.request.role import ForwarderRole
from forwarder_vpp.settings import ForwarderSettings
from forwarder_vpp.store.base import Store
from forwarder_vpp.store.sqlite import SqliteStore
from nsm.identity.wireguard_keys import new_key_pair
from nsm.model.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.errors import NsmError
from nsm.policy.rules import RegistryPolicies
from nsm.service.daemon import Daemon, Node, open_node
from nsm.service.discovery import Discovery
from nsm.service.hop import HopServer
from nsm.service.next_hop import NextHop
from nsm.service.registry import Registration, RegistryClient
from nsm.session.path import put_metrics
from nsm.transport.call import Call
from nsm.transport.server import Server
from nsm.wire.methods import MONITOR_CONNECTIONS, NETWORK_SERVICE_CLOSE, NETWORK_SERVICE_REQUEST

DRAIN_TIMEOUT: Final = 5.0
"""Seconds at the end for what closed connections have left."""

REMOVAL_TIMEOUT: Final = 20.0
"""Seconds at the end for every connection, where none is to stay."""

_LOG: Final = structlog.get_logger(__name__)


async def serve(settings: ForwarderSettings, daemon: Daemon) -> None:
    """Serve until the daemon is asked to stop. Connections stay as they are, unless the settings say otherwise."""
    name_ignored(os.environ)
    async with AsyncExitStack() as stack:
        dataplane = make_dataplane(settings)
        missing = await dataplane.missing() if isinstance(dataplane, VppDataplane) else None
        if missing is None:
            await stack.enter_async_context(started(dataplane))
        store = await SqliteStore.open(settings.state_dir / "connections.db")
        stack.push_async_callback(store.close)
        node = await stack.enter_async_context(open_node(settings))
        if missing is not None:
            async with refusing(node, settings.listen_on, f"waiting for VPP: {missing.message}"):
                await stack.enter_async_context(started(dataplane))
        made = await stack.enter_async_context(forwarder(settings, node, dataplane, store))
        urls = await made.start(settings.listen_on)
        registration = Registration(made.registry, registered(settings, urls[0]))
        await registration.start()
        stack.push_async_callback(registration.stop)
        daemon.ready(
            urls=urls, dataplane=dataplane.name, tunnel_ip=dataplane.tunnel_ip, mtu=dataplane.tunnel_mtu
        )
        await daemon.stopping.wait()
        made.server.set_serving(False)


@asynccontextmanager
async def started(dataplane: Dataplane) -> AsyncIterator[None]:
    """The dataplane at work, let go of at the end."""
    await dataplane.start()
    try:
        yield
    finally:
        await dataplane.close()


def registered(settings: ForwarderSettings, url: str) -> NetworkServiceEndpoint:
    """How the manager knows us (reference §3.10)."""
    return NetworkServiceEndpoint(
        name=settings.name,
        network_service_names=(settings.nsname,),
        network_service_labels={settings.nsname: settings.labels},
        url=url,
    )


def make_dataplane(settings: ForwarderSettings) -> Dataplane:
    """The dataplane of the settings; one line says which and why. NsmError: no tunnel address."""
    choice = choose(settings)
    address = tunnel_ip(settings)
    instance = f"{settings.name}@{settings.state_dir.resolve()}"
    _LOG.info("dataplane.chosen", dataplane=choice.dataplane, why=choice.why, tunnel_ip=address)
    if choice.dataplane == "linux":
        return LinuxDataplane(address, settings.state_dir, instance=instance)
    vxlan = settings.vxlan_port or VXLAN_PORT
    options = VppOptions(
        api_socket=settings.vpp_api_socket if external_vpp(settings) else "",
        profile=settings.vpp_profile,
        uplink="none" if settings.vpp_init == "NONE" else "auto",
        expedited=settings.expedited,
        warm_pool=settings.warm_pool,
        ends_vpp=not settings.keep_connections,
        ports=((vxlan, vxlan), (WIREGUARD_PORT, WIREGUARD_PORT), (OWN_PORTS[0], OWN_PORTS[-1])),
    )
    return VppDataplane(address, settings.state_dir, options, instance=instance)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A forwarder in one piece."""

    server: Server
    hop: HopServer
    role: ForwarderRole
    reconciler: Reconciler
    registry: RegistryClient

    async def start(self, urls: tuple[str, ...]) -> tuple[str, ...]:
        """Adopt what was there, then serve; the result has ports resolved."""
        for connection, remaining in await self.role.adopt():
            self.hop.adopt(connection, remaining)
        return await self.server.start(urls)

    async def monitor(self, selector: MonitorScopeSelector, call: Call) -> AsyncIterator[ConnectionEvent]:
        """As ``HopServer.monitor``; who asks for everything also gets the counters of this moment."""
        if selector == MonitorScopeSelector():
            await self._count()
        async for event in self.hop.monitor(selector, call):
            yield event

    async def _count(self) -> None:
        try:
            counted = await self.role.counted()
        except NsmError as error:
            _LOG.warning("counters.unknown", reason=str(error))
            return
        for connection_id, metrics in counted.items():
            self.hop.publish(connection_id, lambda stored, new=metrics: put_metrics(stored, new))  # type: ignore[misc]


@asynccontextmanager
async def forwarder(
    settings: ForwarderSettings, node: Node, dataplane: Dataplane, store: Store
) -> AsyncIterator[Forwarder]:
    """Everything a forwarder is made of; ``dataplane`` has started. It does not serve yet."""
    registry = RegistryClient(
        node.channels,
        settings.connect_to,
        policies=RegistryPolicies(node.verifier, settings.registry_client_policies),
        timeout=settings.call_timeout,
    )

    def removed(connection_id: str) -> None:
        role.removed(connection_id)

    reconciler = Reconciler(dataplane, quarantine=settings.max_token_lifetime, on_removed=removed)

    def changed(connection_id: str, theirs: Connection) -> None:
        hop.publish(connection_id, lambda stored: _ours(stored, theirs))

    next_hop = NextHop(settings.name, node.channels, changed)
    role = ForwarderRole(
        dataplane,
        reconciler,
        store,
        Discovery(registry),
        next_hop,
        instance=f"{settings.name}@{settings.state_dir.resolve()}",
        new_keys=new_key_pair,
        vxlan_port=settings.vxlan_port or VXLAN_PORT,
        priority=settings.mechanism_priority,
    )
    hop = HopServer(settings.name, role, tokens=node.tokens, policies=node.policies, is_endpoint=False)
    server = Server(node.identity)
    made = Forwarder(server, hop, role, reconciler, registry)
    server.unary(NETWORK_SERVICE_REQUEST, hop.request)
    server.unary(NETWORK_SERVICE_CLOSE, hop.close)
    server.stream(MONITOR_CONNECTIONS, made.monitor)
    ending = Ending(role, hop)
    dataplane.namespaces.on_gone(ending.netns_gone)
    if isinstance(dataplane, VppDataplane):
        dataplane.on_node_changed(reconciler.node_changed)
    try:
        yield made
    finally:
        await server.stop()
        await hop.stop()
        await ending.stop()
        await role.stop()
        await next_hop.stop()
        if not settings.keep_connections:
            role.let_go()
        await _drain(reconciler, DRAIN_TIMEOUT if settings.keep_connections else REMOVAL_TIMEOUT)
        await reconciler.stop()
        await registry.close()


class Ending:
    """Closes the connections of a workload whose namespace has ended."""

    def __init__(self, role: ForwarderRole, hop: HopServer) -> None:
        self._role = role
        self._hop = hop
        self._tasks: set[asyncio.Task[None]] = set()

    def netns_gone(self, netns: NetnsId) -> None:
        """Close all that has an end there."""
        for connection_id in self._role.users_of(netns):
            _LOG.info("namespace.gone", connection=connection_id)
            task = asyncio.create_task(self._close(connection_id), name=f"namespace gone {connection_id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Wait for what is being closed."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def _close(self, connection_id: str) -> None:
        try:
            await self._hop.close_connection(connection_id, "role")
        except NsmError as error:
            _LOG.warning("namespace.close_failed", connection=connection_id, reason=str(error))


async def _drain(reconciler: Reconciler, seconds: float) -> None:
    """What cannot go in time is found by its row at the next start."""
    try:
        async with asyncio.timeout(seconds):
            await reconciler.drain()
    except TimeoutError:
        _LOG.warning("drain.incomplete", seconds=seconds)


def _ours(stored: Connection, theirs: Connection) -> Connection:
    """News of the next hop about our connection: our mechanism and MTU stay."""
    context = theirs.context
    if context is not None and stored.context is not None:
        context = replace(context, mtu=stored.context.mtu)
    return replace(theirs, mechanism=stored.mechanism, context=context)
