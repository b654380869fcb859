"""What a lab consists of: names, addresses, files. Derived from its name and size, no I/O.

Each node is a network namespace with a manager and a forwarder; the first one also has the registry. Each node has an
identity service of its own, signed by the first node's authority, as two real hosts would be joined. Workloads are
further namespaces, connected to nothing but what the mesh gives them.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nsmctl.lab.namespaces import path_of

RUN: Final = Path("/run/nsm-lab")
TRUST_DOMAIN: Final = "lab.nsm"
REGISTRY_PORT: Final = 5002
MANAGER_PORT: Final = 5001


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the lab; ``number`` counts from 1."""

    lab: str
    number: int

    @property
    def name(self) -> str:
        """``n1``."""
        return f"n{self.number}"

    @property
    def space(self) -> str:
        """Name of its network namespace."""
        return f"{self.lab}-{self.name}"

    @property
    def netns(self) -> Path:
        """File of its network namespace."""
        return path_of(self.space)

    @property
    def directory(self) -> Path:
        """Everything the node's daemons keep."""
        return RUN / self.lab / self.name

    @property
    def ip(self) -> str:
        """Its underlay address."""
        return f"10.254.0.{self.number}"

    @property
    def manager(self) -> str:
        """The manager's URL for workloads of this node."""
        return f"unix://{self.directory}/nsm.io.sock"

    @property
    def forwarder(self) -> str:
        """The forwarder's URL on this node."""
        return f"unix://{self.directory}/forwarder.sock"

    @property
    def manager_public(self) -> str:
        """The manager's URL for other nodes."""
        return f"tcp://{self.ip}:{MANAGER_PORT}"

    @property
    def identities(self) -> Path:
        """Folder of the Workload API sockets."""
        return self.directory / "identity"

    @property
    def vpp_directory(self) -> Path:
        """Runtime folder of the node's VPP."""
        return self.directory / "forwarder" / "vpp"


@dataclass(frozen=True, slots=True)
class Topology:
    """A lab of ``size`` nodes; ``mtu`` of the underlay in bytes; ``dataplane`` is ``vpp`` or ``linux``."""

    name: str = "nsm"
    size: int = 2
    dataplane: str = "linux"
    mtu: int = 1500

    @property
    def directory(self) -> Path:
        """Everything of this lab that is a file."""
        return RUN / self.name

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes."""
        return tuple(Node(self.name, number) for number in range(1, self.size + 1))

    @property
    def cable(self) -> str:
        """The namespace of the switch between the nodes."""
        return f"{self.name}-cable"

    @property
    def registry(self) -> str:
        """URL of the registry, on the first node."""
        return f"tcp://{self.nodes[0].ip}:{REGISTRY_PORT}"

    def node(self, name: str) -> Node:
        """The node of that name; KeyError if there is none."""
        return {node.name: node for node in self.nodes}[name]

    def workload_space(self, name: str) -> str:
        """The namespace of a workload."""
        return f"{self.name}-{name}"


def mark(name: str) -> str:
    """The mark that every process of the lab carries in its environment; unique by boot and user."""
    return f"{name}@{os.getuid()}"
