"""The composition of ``nsm-manager``."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from controlplane.manager.labels import NodeLabels
from controlplane.manager.local import LocalEndpoints
from controlplane.manager.mirror import Mirror
from controlplane.manager.prefixes import ExcludedPrefixes
from controlplane.manager.public_url import public_url
from controlplane.manager.registry import NodeRegistry
from controlplane.manager.role import ManagerRole
from controlplane.manager.service_watch import ServiceWatch
from controlplane.manager.settings import ManagerSettings
from controlplane.registry.server import RegistryServer, registry_policies
from nsm.model.connection import Connection
from nsm.policy.rules import RegistryPolicies
from nsm.service.daemon import Daemon, Node, open_node
from nsm.service.hop import HopServer
from nsm.service.late_closes import LateCloses
from nsm.service.next_hop import NextHop
from nsm.service.registry import RegistryClient
from nsm.transport.server import Server


async def serve(settings: ManagerSettings, daemon: Daemon) -> None:
    """Serve until the daemon is asked to stop."""
    async with open_node(settings) as node, manager(settings, node) as made:
        urls = await made.start(settings.listen_on)
        daemon.ready(urls=urls, public_url=made.local.public_url, registry=settings.registry_url)
        await daemon.stopping.wait()
        made.server.set_serving(False)


@dataclass(frozen=True, slots=True)
class Manager:
    """A manager in one piece."""

    server: Server
    local: LocalEndpoints
    mirror: Mirror
    hop: HopServer

    async def start(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Serve on ``urls`` once the registry was copied, or could not be; the result has ports resolved."""
        await self.mirror.settled()
        listening = await self.server.start(urls)
        self.local.public_url = public_url(listening)
        return listening


@asynccontextmanager
async def manager(settings: ManagerSettings, node: Node) -> AsyncIterator[Manager]:
    """Everything a manager is made of; it does not serve yet, its public URL is that of the settings."""
    server = Server(node.identity)
    client = RegistryClient(
        node.channels,
        settings.registry_url,
        policies=RegistryPolicies(node.verifier, settings.registry_client_policies),
        timeout=settings.call_timeout,
    )
    labels = NodeLabels.of(node=settings.node_name, pod=settings.pod_name, cluster=settings.cluster_name)
    local = LocalEndpoints(public_url(settings.listen_on), node.channels.drop)
    mirror = Mirror(client)
    prefixes = ExcludedPrefixes(settings.excluded_prefixes_file)
    services, endpoints = registry_policies(node.verifier, settings.registry_server_policies)
    backend = NodeRegistry(client, mirror, local, labels, endpoints=endpoints)
    RegistryServer(
        backend, tokens=node.tokens, verifier=node.verifier, services=services, endpoints=endpoints
    ).serve(server)

    def changed(connection_id: str, connection: Connection) -> None:
        hop.publish(connection_id, lambda _stored: connection)

    async def mismatched(connection_id: str) -> None:
        await hop.close_connection(connection_id, "role")

    next_hop = NextHop(settings.name, node.channels, changed)
    late = LateCloses(next_hop.leave, local.arrivals)
    role = ManagerRole(
        next_hop,
        mirror,
        local,
        labels,
        prefixes,
        late=late,
        forwarder_service=settings.forwarder_network_service_name,
    )
    hop = HopServer(
        settings.name, role, tokens=node.tokens, policies=node.policies, is_endpoint=False, is_forgetful=True
    )
    hop.serve(server)
    watch = ServiceWatch(mirror, hop.connections, mismatched)
    prefixes.start()
    mirror.start()
    try:
        yield Manager(server, local, mirror, hop)
    finally:
        prefixes.stop()
        await watch.stop()
        await mirror.stop()
        await server.stop()
        await hop.stop()
        await late.stop()
        await next_hop.stop()
        await backend.close()
        await client.close()
