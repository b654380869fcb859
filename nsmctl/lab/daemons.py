"""How the lab starts each daemon: the same console scripts and ``NSM_*`` variables that any host uses."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nsmctl.lab.topology import MANAGER_PORT, Node, Topology


@dataclass(frozen=True, slots=True)
class Daemon:
    """One daemon: its name in the lab (``n1/manager``), program, environment and namespace."""

    name: str
    program: str
    netns: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """The console script beside this Python, with its arguments."""
        return (str(Path(sys.executable).with_name(self.program)), *self.arguments)


def registry(topology: Topology) -> Daemon:
    """The registry, on the first node."""
    node = topology.nodes[0]
    env = {"NSM_NAME": "registry", "NSM_LISTEN_ON": topology.registry, **_identity(node)}
    env["NSM_STORE"] = str(node.directory / "registry.sqlite")
    return _on(node, "registry", "nsm-registry", env)


def manager(topology: Topology, node: Node) -> Daemon:
    """The manager of one node."""
    env = {
        "NSM_NAME": f"manager-{node.name}",
        "NODE_NAME": node.name,
        "NSM_LISTEN_ON": f"{node.manager},tcp://{node.ip}:{MANAGER_PORT}",
        "NSM_REGISTRY_URL": topology.registry,
        "NSM_EXCLUDED_PREFIXES_FILE": str(node.directory / "excluded_prefixes.yaml"),
        **_identity(node),
    }
    return _on(node, "manager", "nsm-manager", env)


def forwarder(topology: Topology, node: Node, extra: Mapping[str, str]) -> Daemon:
    """The forwarder of one node; ``extra`` variables win."""
    env = {
        "NSM_NAME": f"forwarder-{node.name}",
        "NSM_CONNECT_TO": node.manager,
        "NSM_LISTEN_ON": node.forwarder,
        "NSM_TUNNEL_IP": node.ip,
        "NSM_DATAPLANE": topology.dataplane,
        "NSM_STATE_DIR": str(node.directory / "forwarder"),
        "NSM_VPP_PROFILE": "lab",
        **_identity(node),
        **extra,
    }
    return _on(node, "forwarder", "forwarder-vpp", env)


def endpoint(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> Daemon:
    """An endpoint in a workload's namespace."""
    env = {
        "NSM_NAME": name,
        "NSM_CONNECT_TO": node.manager,
        "NSM_LISTEN_ON": f"unix://{node.directory}/{name}.sock",
        "NSM_PBR_CONFIG_PATH": str(node.directory / f"{name}.policies.yaml"),
        "NSM_UNREGISTER_ITSELF": "true",
        **_identity(node),
        **extra,
    }
    return Daemon(name, "nsm-endpoint", netns, node.directory / f"{name}.log", env)


def client(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> Daemon:
    """A client in a workload's namespace."""
    env = {
        "NSM_NAME": name,
        "NODE_NAME": node.name,
        "NSM_CONNECT_TO": node.manager,
        **_identity(node),
        **extra,
    }
    return Daemon(name, "nsm-client", netns, node.directory / f"{name}.log", env)


def _identity(node: Node) -> dict[str, str]:
    return {"NSM_IDENTITY_DIR": str(node.identities), "NSM_LOG_FORMAT": "json"}


def _on(node: Node, role: str, program: str, env: Mapping[str, str]) -> Daemon:
    return Daemon(f"{node.name}/{role}", program, node.netns, node.directory / f"{role}.log", env)
