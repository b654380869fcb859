"""Which mesh a command is about: a lab of this machine, or any other, ours or of Go components, by URL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from nsm.service.config import NsmSettings
from nsmctl.lab import identities, namespaces
from nsmctl.lab.topology import Topology

DIAL_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Mesh:
    """Where to ask, and as whom.

    ``registry`` may be a manager's URL, which answers for it. ``managers``: URL by the name to show; without any, those
    that the registered endpoints name. ``forwarders``: URLs to ask for counters of this moment. ``netns``: where the
    URLs are reached.
    """

    registry: str
    settings: NsmSettings
    managers: Mapping[str, str] = field(default_factory=dict)
    forwarders: tuple[str, ...] = ()
    netns: Path = namespaces.OWN
    hint: str = ""


def of_lab(topology: Topology) -> Mesh:
    """Asked from inside the first node, because the registry and the managers listen on the underlay."""
    first = topology.nodes[0]
    return Mesh(
        topology.registry,
        NsmSettings(name=identities.OPERATOR, identity_dir=str(first.identities), dial_timeout=DIAL_S),
        {node.name: node.manager for node in topology.nodes},
        tuple(node.forwarder for node in topology.nodes),
        first.netns,
        "see nsmctl lab status",
    )


def at(registry: str, manager: str, socket: str, name: str) -> Mesh:
    """By the URLs of a registry, a manager or both; ``socket`` is the Workload API, ``name`` our path segment's."""
    return Mesh(
        registry or manager,
        NsmSettings(name=name, spiffe_endpoint_socket=socket, dial_timeout=DIAL_S),
        {manager: manager} if manager else {},
        hint="is the URL right, and does the Workload API know this process?",
    )
