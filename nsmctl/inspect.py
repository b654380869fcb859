"""Asks the daemons of a mesh, over the same gRPC and with an identity of its own, as any member of it would."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from nsm.model.connection import Connection, MonitorScopeSelector
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.errors import NsmError
from nsm.model.path import PathSegment
from nsm.service.daemon import Node, open_node
from nsm.service.registry import RegistryClient
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.errors import LabError
from nsmctl.lab import namespaces
from nsmctl.mesh import Mesh

T = TypeVar("T")
FORWARDER_SERVICE: Final = "forwarder"
PATIENCE_S: Final = 15.0
_COUNTERS: Final = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "drops")


@dataclass(frozen=True, slots=True)
class Seen:
    """A connection as the manager of ``node`` has it."""

    node: str
    connection: Connection

    @property
    def is_first_hop(self) -> bool:
        """Whether the client is a workload of that node: the same connection passes other managers too."""
        return self.connection.route.index == 1

    def counters(self) -> list[dict[str, Any]]:
        """What each forwarder on the path last counted, for its client and its endpoint side."""
        found = []
        for segment in self.connection.route.segments:
            for side in ("client", "server"):
                values = {key: segment.metrics.get(f"{side}_{key}") for key in _COUNTERS}
                if any(value is not None for value in values.values()):
                    interface = segment.metrics.get(f"{side}_interface", "")
                    found.append({"hop": segment.name, "side": side, "interface": interface, **values})
        return found


def services(mesh: Mesh) -> Sequence[NetworkService]:
    """Every registered network service."""
    return _ask(mesh, lambda node: _registry(node, mesh).find_services(NetworkService()))


def endpoints(mesh: Mesh) -> Sequence[NetworkServiceEndpoint]:
    """Every registered endpoint, forwarders apart."""
    found = _ask(mesh, lambda node: _registry(node, mesh).find_endpoints(NetworkServiceEndpoint()))
    return [endpoint for endpoint in found if FORWARDER_SERVICE not in endpoint.network_service_names]


def forwarders(mesh: Mesh) -> Sequence[NetworkServiceEndpoint]:
    """Every registered forwarder."""
    query = NetworkServiceEndpoint(network_service_names=(FORWARDER_SERVICE,))
    return _ask(mesh, lambda node: _registry(node, mesh).find_endpoints(query))


def connections(mesh: Mesh) -> Sequence[Seen]:
    """Every connection, as seen by the manager of its client's node, with what the forwarders count right now.

    Where no forwarder can be asked, with what each last wrote into the path.
    """

    async def all_nodes(node: Node) -> list[Seen]:
        managers = mesh.managers or await _registered_managers(node, mesh)
        found = [Seen(name, each) for name, url in managers.items() for each in await _snapshot(node, url)]
        counted: dict[str, PathSegment] = {}
        for url in mesh.forwarders:
            for connection in await _snapshot(node, url):
                if connection.route.current is not None:
                    counted[connection.id] = connection.route.current
        return [Seen(s.node, _with_counters(s.connection, counted)) for s in found if s.is_first_hop]

    return _ask(mesh, all_nodes)


async def _registered_managers(node: Node, mesh: Mesh) -> Mapping[str, str]:
    """By URL: a manager registers whatever is on its node under its own."""
    found = await _registry(node, mesh).find_endpoints(NetworkServiceEndpoint())
    return {each.url: each.url for each in found if each.url.startswith("tcp://")}


def _with_counters(connection: Connection, counted: Mapping[str, PathSegment]) -> Connection:
    """The connection with each forwarder's newest segment in its path (ids are unique per hop)."""
    segments = tuple(counted.get(segment.id, segment) for segment in connection.route.segments)
    return replace(connection, path=replace(connection.route, segments=segments))


async def _snapshot(node: Node, url: str) -> list[Connection]:
    """The initial state that a daemon sends at once."""
    stream = node.channels.get(url).stream(MONITOR_CONNECTIONS, MonitorScopeSelector(), timeout=10)
    async with aclosing(stream) as events:
        async for event in events:
            return list(event.connections.values())
    return []


def _registry(node: Node, mesh: Mesh) -> RegistryClient:
    return RegistryClient(node.channels, mesh.registry)


def _ask(mesh: Mesh, question: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
    """Put a question as the operator; LabError when the mesh does not answer."""

    async def run() -> T:
        async with asyncio.timeout(PATIENCE_S), open_node(mesh.settings) as node:
            return await question(node)

    try:
        with namespaces.entered(mesh.netns):
            return asyncio.run(run())
    except NsmError as error:
        raise LabError(f"the mesh does not answer: {error}", hint=mesh.hint) from error
    except TimeoutError:
        text = f"no identity from {mesh.settings.identity_endpoint}, or no answer, within {PATIENCE_S:.0f} s"
        raise LabError(text, hint=mesh.hint) from None
