"""Asks a running lab's own daemons, over the same gRPC and with an identity of its own, as any operator would.

Run inside the first node's namespace, because the registry and the managers listen on the underlay.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from nsm.model.connection import Connection, MonitorScopeSelector
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.errors import NsmError
from nsm.model.path import PathSegment
from nsm.service.config import NsmSettings
from nsm.service.daemon import Node, open_node
from nsm.service.registry import RegistryClient
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.errors import LabError
from nsmctl.lab import identities, namespaces
from nsmctl.lab.topology import Topology

T = TypeVar("T")
FORWARDER_SERVICE: Final = "forwarder"
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


def services(topology: Topology) -> Sequence[NetworkService]:
    """Every registered network service."""
    return _ask(topology, lambda node: _registry(node, topology).find_services(NetworkService()))


def endpoints(topology: Topology) -> Sequence[NetworkServiceEndpoint]:
    """Every registered endpoint, forwarders apart."""
    found = _ask(topology, lambda node: _registry(node, topology).find_endpoints(NetworkServiceEndpoint()))
    return [endpoint for endpoint in found if FORWARDER_SERVICE not in endpoint.network_service_names]


def forwarders(topology: Topology) -> Sequence[NetworkServiceEndpoint]:
    """Every registered forwarder."""
    query = NetworkServiceEndpoint(network_service_names=(FORWARDER_SERVICE,))
    return _ask(topology, lambda node: _registry(node, topology).find_endpoints(query))


def connections(topology: Topology) -> Sequence[Seen]:
    """Every connection, as seen by the manager of its client's node, with what each forwarder counts right now."""

    async def all_nodes(node: Node) -> list[Seen]:
        found: list[Seen] = []
        counted: dict[str, PathSegment] = {}
        for place in topology.nodes:
            found += [Seen(place.name, c) for c in await _snapshot(node, place.manager)]
            for connection in await _snapshot(node, place.forwarder):
                if connection.route.current is not None:
                    counted[connection.id] = connection.route.current
        return [Seen(s.node, _with_counters(s.connection, counted)) for s in found if s.is_first_hop]

    return _ask(topology, all_nodes)


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


def _registry(node: Node, topology: Topology) -> RegistryClient:
    return RegistryClient(node.channels, topology.registry)


def _ask(topology: Topology, question: Callable[[Node], Coroutine[Any, Any, T]]) -> T:
    """Put a question as the operator; LabError when the mesh does not answer."""
    first = topology.nodes[0]
    settings = NsmSettings(name=identities.OPERATOR, identity_dir=str(first.identities), dial_timeout=5.0)

    async def run() -> T:
        async with open_node(settings) as node:
            return await question(node)

    try:
        with namespaces.entered(first.netns):
            return asyncio.run(run())
    except NsmError as error:
        raise LabError(f"the lab does not answer: {error}", hint="see nsmctl lab status") from error
