"""An endpoint in the middle of a chain: server and client of the mesh under one name, its namespace a router.

``python -m tests.fakes.passthrough`` is an ``nsm-endpoint`` (same settings) that connects each of its clients on to
the service in ``NSM_NEXT_SERVICE``. Both halves use one path segment, so a path of such a chain on one node passes
the same manager and the same forwarder several times.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_interface

from controlplane.endpoint.ipam import PointToPointIpam
from controlplane.endpoint.role import EndpointRole
from controlplane.endpoint.settings import EndpointSettings
from controlplane.workload import file_url
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext, Route
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.service.config import load_settings
from nsm.service.daemon import Daemon, open_node, run
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.next_hop import NextHop
from nsm.service.registry import Registration, RegistryClient
from nsm.transport.server import Server

OUT = "out-1"
"""The interface towards the rest of the chain; one client at a time is enough for a test."""


class Passthrough:
    """The role: addresses of its own towards the client, routes through to what the next service gives."""

    def __init__(self, own: EndpointRole, next_hop: NextHop, url: str, service: str, netns: str) -> None:
        self._own = own
        self._next_hop = next_hop
        self._url = url
        self._service = service
        self._preference = Mechanism(LOCAL, KERNEL, {INODE_URL: netns, INTERFACE_NAME: OUT})
        self._asked: dict[str, Connection] = {}

    async def request(self, incoming: Incoming) -> Connection:
        """Our own end first, then the rest of the chain, whose addresses become routes of the client."""
        ours = await self._own.request(incoming)
        before = self._asked.get(ours.id)
        back = tuple(dict.fromkeys((*_hosts(ours.ip.src_ip_addrs), *(r.prefix for r in ours.ip.dst_routes))))
        context = (
            before.ctx if before else ConnectionContext(IpContext(dst_routes=_routes(back)), mtu=ours.ctx.mtu)
        )
        onward = replace(
            ours,
            network_service=self._service,
            network_service_endpoint_name=before.network_service_endpoint_name if before else "",
            mechanism=before.mechanism if before else None,
            context=context,
            labels={},
        )
        answer = await self._next_hop.request(
            self._url, onward, (self._preference,), deadline=incoming.deadline
        )
        self._asked[ours.id] = replace(answer, mechanism=self._preference)
        there = (*_hosts(answer.ip.dst_ip_addrs), *(route.prefix for route in answer.ip.src_routes))
        ip = replace(ours.ip, src_routes=_routes(dict.fromkeys((*_prefixes(ours.ip.src_routes), *there))))
        return replace(ours, path=answer.path, context=replace(ours.ctx, ip_context=ip))

    async def close(self, closing: Closing) -> None:
        """The rest of the chain, then our own end."""
        asked = self._asked.pop(closing.connection.id, None)
        try:
            if asked is not None:
                gone = replace(asked, path=closing.connection.path)
                await self._next_hop.close(self._url, gone, deadline=closing.deadline)
        finally:
            await self._own.close(closing)


def _hosts(addresses: Sequence[str]) -> list[str]:
    return [str(ip_interface(text).network) for text in addresses]


def _prefixes(routes: Sequence[Route]) -> list[str]:
    return [route.prefix for route in routes]


def _routes(prefixes: Sequence[str] | dict[str, None]) -> tuple[Route, ...]:
    return tuple(Route(prefix) for prefix in prefixes)


async def serve(settings: EndpointSettings, daemon: Daemon) -> None:
    """Until told to stop."""
    async with open_node(settings) as node:
        netns = file_url(settings.netns_file)
        own = EndpointRole(PointToPointIpam(settings.cidr_prefix), netns=netns, payload=settings.payload)
        next_hop = NextHop(settings.name, node.channels)
        role = Passthrough(own, next_hop, settings.connect_to, os.environ["NSM_NEXT_SERVICE"], netns)
        hop = HopServer(settings.name, role, tokens=node.tokens, policies=node.policies, is_endpoint=False)
        server = Server(node.identity)
        hop.serve(server)
        (url,) = await server.start(settings.listen_on)
        registry = RegistryClient(node.channels, settings.connect_to)
        endpoint = NetworkServiceEndpoint(
            name=settings.name, network_service_names=settings.service_names, url=url
        )
        services = [NetworkService(name=name, payload=settings.payload) for name in settings.service_names]
        registration = Registration(registry, endpoint, services)
        await registration.start()
        daemon.ready(name=settings.name)
        try:
            await daemon.stopping.wait()
        finally:
            await registration.stop()
            await server.stop()
            await hop.stop()
            await next_hop.stop()
            await registry.close()


if __name__ == "__main__":
    sys.exit(run(load_settings(EndpointSettings), serve))
