"""Our transport with the Go client and the Go endpoint, descriptors included (reference §4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path as Route
from nsm.model.path import PathSegment
from nsm.service.daemon import Node as MeshNode
from nsm.service.hop import Closing, HopServer, Incoming
from nsm.service.next_hop import NextHop
from nsm.service.registry import RegistryClient
from nsm.transport.server import Server
from nsmctl.lab import identities
from nsmctl.lab.processes import stop
from nsmctl.lab.topology import Node

from . import peers
from .casts import Mixed
from .conftest import ON_LINUX
from .monitor import PATIENCE, in_mesh

pytestmark = [*peers.needed, ON_LINUX]

Kind = Literal["request", "refresh", "close"]


@dataclass
class Observer:
    """Keeps which namespace each call brought a descriptor of; that descriptor goes back, as managers do it."""

    seen: "asyncio.Queue[tuple[Kind, list[int]]]" = field(default_factory=asyncio.Queue)

    async def request(self, incoming: Incoming) -> Connection:
        connection = incoming.connection
        offered = [*incoming.preferences, *filter(None, [connection.mechanism])]
        self.seen.put_nowait(("refresh" if incoming.is_refresh else "request", list(map(_inode, offered))))
        addresses = IpContext(src_ip_addrs=("192.0.2.1/32",), dst_ip_addrs=("192.0.2.2/32",))
        return replace(
            connection,
            mechanism=offered[0],
            context=ConnectionContext(ip_context=addresses),
            payload="IP",
            network_service_endpoint_name="observer",
        )

    async def close(self, closing: Closing) -> None:
        arrived = closing.arrived
        if arrived is not None and arrived.mechanism is not None:
            self.seen.put_nowait(("close", [_inode(arrived.mechanism)]))

    async def next(self, kind: Kind) -> list[int]:
        """The inodes that came with the next call, which must be of that kind."""
        async with asyncio.timeout(PATIENCE):
            found, inodes = await self.seen.get()
        assert found == kind
        return inodes


def _inode(mechanism: Mechanism) -> int:
    """The namespace behind a file URL, while the descriptor is open."""
    return Path(mechanism.get(INODE_URL).removeprefix("file://")).stat().st_ino


@asynccontextmanager
async def observed(node: Node) -> AsyncIterator[tuple[Observer, str]]:
    """An ``Observer`` that serves; its URL."""
    observer = Observer()
    identities.register(node, "endpoint", "observer")
    try:
        async with in_mesh(node, "observer") as mesh:
            hop = HopServer(
                "observer", observer, tokens=mesh.tokens, policies=mesh.policies, is_endpoint=True
            )
            server = Server(mesh.identity)
            hop.serve(server)
            (url,) = await server.start([f"unix://{node.directory}/observer.sock"])
            try:
                yield observer, url
            finally:
                await hop.stop()
                await server.stop()
    finally:
        identities.unregister(node, "observer")


async def test_a_go_client_sends_its_namespace_with_request_refresh_and_close(lab: Mixed) -> None:
    async with observed(lab.near) as (observer, url):
        client = await asyncio.to_thread(
            lab.go_client,
            "gc",
            "observed",
            NSM_CONNECT_TO=url,
            NSM_MAX_TOKEN_LIFETIME="10s",
            NSM_REQUEST_TIMEOUT="4s",
        )
        namespace = lab.netns("gc").stat().st_ino
        assert client.connection.network_service_endpoint_name == "observer"
        assert await observer.next("request") == [namespace]
        for _ in range(2):
            assert await observer.next("refresh") == [namespace, namespace], "preference and mechanism"
        stop([client.process], grace=0)
        assert not client.process.alive
    assert "tokens_chained" not in lab.text(client.process)


async def test_a_go_client_closes_with_its_namespace_when_it_is_told_to_end(lab: Mixed) -> None:
    async with observed(lab.near) as (observer, url):
        client = await asyncio.to_thread(lab.go_client, "gc", "observed", NSM_CONNECT_TO=url)
        namespace = lab.netns("gc").stat().st_ino
        assert await observer.next("request") == [namespace]
        assert await asyncio.to_thread(stop, [client.process], grace=20) == ()
        assert await observer.next("close") == [namespace]


async def test_a_go_endpoint_gives_us_its_socket_and_its_namespace(lab: Mixed) -> None:
    await asyncio.to_thread(lab.go_endpoint, "gs", node=lab.near)
    namespace = lab.netns("gs").stat().st_ino
    async with in_mesh(lab.near) as mesh:
        registry = RegistryClient(mesh.channels, lab.near.manager)
        (found,) = await registry.find_endpoints(NetworkServiceEndpoint(name="gs"))
        assert found.url.startswith("unix:///proc/self/fd/"), "its socket came as a descriptor"
        assert found.network_service_labels["gs-service"]["nodeName"] == "n1"
        await _use(mesh, found.url, namespace)
        await registry.close()


async def _use(mesh: MeshNode, url: str, namespace: int) -> None:
    """Request, refresh and Close as a forwarder would."""
    loop = asyncio.get_running_loop()
    hop = NextHop("caller", mesh.channels, on_event=lambda *_: None)
    path = Route(index=0, segments=(PathSegment(name="caller", id="caller-0"),))
    wanted = Connection(id="caller-0", network_service="gs-service", payload="IP", path=path)
    kernel = Mechanism(LOCAL, KERNEL, {})
    first = await hop.request(url, wanted, [kernel], deadline=loop.time() + 10)
    assert first.mechanism is not None
    assert _inode(first.mechanism) == namespace, "its namespace came as a descriptor"
    assert 0 < len(first.mechanism.get(INTERFACE_NAME)) <= 15
    assert [segment.name for segment in first.route.segments] == ["caller", "gs"]
    mesh.policies.client(first.route, (await mesh.channels.get(url).peer()).leaf)
    again = await hop.request(url, first, [kernel], deadline=loop.time() + 10)
    assert again.mechanism is not None
    assert again.mechanism.get(INTERFACE_NAME) == first.mechanism.get(INTERFACE_NAME)
    assert _inode(again.mechanism) == namespace
    assert again.ip.src_ip_addrs == first.ip.src_ip_addrs
    await hop.close(url, again, deadline=loop.time() + 10)
    await hop.stop()
