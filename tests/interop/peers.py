"""The Go components and SPIRE as daemons of a lab: found on PATH or in NSM_PEERS_DIR, in the place of one of ours.

They take the names, URLs and identities that our daemon in that place would have. What they need beyond (reference
§5, §6): the Workload API by SPIFFE_ENDPOINT_SOCKET, logs at INFO (trap 63), no DNS server (trap 55). The client goes
without its own liveness check unless a test asks for it, so that a test of Request and Close is about nothing else.
"""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from nsmctl.errors import LabError
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import Process
from nsmctl.lab.ready import tail
from nsmctl.lab.topology import MANAGER_PORT, Node, Topology
from nsmctl.lab.watch import IN_MODIFY, watching

REGISTRY: Final = "cmd-registry-memory"
MANAGER: Final = "cmd-nsmgr"
FORWARDER: Final = "cmd-forwarder-vpp"
ENDPOINT: Final = "cmd-nse-icmp-responder"
CLIENT: Final = "cmd-nsc"
SPIRE: Final = ("spire-server", "spire-agent")

SERVES: Final = {
    REGISTRY: "Startup completed",
    MANAGER: "Startup completed",
    FORWARDER: "Startup completed",
    ENDPOINT: "startup completed",
    CLIENT: "successfully connected to",
}
"""The log line by which each says that it has done what it was started for."""

CONTROL_PLANE: Final = (REGISTRY, MANAGER, ENDPOINT, CLIENT)
"""What needs no VPP."""
ALL: Final = (*CONTROL_PLANE, FORWARDER, *SPIRE)


def find(program: str) -> str | None:
    """The file of a peer; ``None`` if it is not installed."""
    return shutil.which(program, path=os.environ.get("NSM_PEERS_DIR")) or shutil.which(program)


def missing(*programs: str) -> tuple[str, ...]:
    """Those that are not installed."""
    return tuple(program for program in programs if find(program) is None)


def needs(*programs: str) -> list[pytest.MarkDecorator]:
    """The ``pytestmark`` of tests with these peers; the summary names what did not run for want of which."""
    return [pytest.mark.interop, pytest.mark.peers(*programs)]


needed: Final = needs(*CONTROL_PLANE)
"""The ``pytestmark`` of modules whose only foreign parts are those of the control plane."""


class GoDaemon(Daemon):
    """A Go component in place of one of our programs."""

    @property
    def argv(self) -> tuple[str, ...]:
        """Its file; all it knows is in the environment."""
        path = find(self.program)
        assert path is not None, f"{self.program} is not installed"
        return (path,)


def registry(topology: Topology) -> GoDaemon:
    """The registry, in memory, on the first node."""
    node = topology.nodes[0]
    env = {"NSM_LISTEN_ON": topology.registry, **_identity(node, "registry")}
    return GoDaemon(f"{node.name}/registry", REGISTRY, node.netns, node.directory / "registry.log", env)


def manager(topology: Topology, node: Node) -> GoDaemon:
    """The manager of one node."""
    env = {
        "NSM_NAME": f"manager-{node.name}",
        "NODE_NAME": node.name,
        "NSM_LISTEN_ON": f"{node.manager},tcp://{node.ip}:{MANAGER_PORT}",
        "NSM_REGISTRY_URL": topology.registry,
        **_identity(node, f"manager-{node.name}"),
    }
    return GoDaemon(f"{node.name}/manager", MANAGER, node.netns, node.directory / "manager.log", env)


def forwarder(node: Node) -> GoDaemon:
    """The forwarder of one node, on a VPP that runs already (``GoVpp``)."""
    env = {
        "NSM_NAME": f"forwarder-{node.name}",
        "NSM_CONNECT_TO": node.manager,
        "NSM_LISTEN_ON": node.forwarder,
        "NSM_TUNNEL_IP": node.ip,
        "NSM_VPP_API_SOCKET": str(node.vpp_directory / "api.sock"),
        "NSM_VPP_INIT": "NONE",
        "NSM_DIAL_TIMEOUT": "5s",
        **_identity(node, f"forwarder-{node.name}"),
    }
    return GoDaemon(f"{node.name}/forwarder", FORWARDER, node.netns, node.directory / "forwarder.log", env)


def endpoint(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> GoDaemon:
    """An endpoint in a workload's namespace."""
    env = {
        "NSM_NAME": name,
        "NSM_CONNECT_TO": node.manager,
        "NSM_PBR_CONFIG_PATH": str(node.directory / f"{name}.policies" / "config.yaml"),
        "NSM_UNREGISTER_ITSELF": "true",
        "TMPDIR": str(node.directory),
        **_identity(node, name),
        **extra,
    }
    return GoDaemon(name, ENDPOINT, netns, node.directory / f"{name}.log", env)


def client(node: Node, name: str, netns: Path, extra: Mapping[str, str]) -> GoDaemon:
    """A client in a workload's namespace."""
    env = {
        "NSM_NAME": name,
        "NODE_NAME": node.name,
        "NSM_CONNECT_TO": node.manager,
        "NSM_LOCAL_DNS_SERVER_ENABLED": "false",
        "NSM_LIVENESS_CHECK_ENABLED": "false",
        **_identity(node, name),
        **extra,
    }
    return GoDaemon(name, CLIENT, netns, node.directory / f"{name}.log", env)


def _identity(node: Node, name: str) -> dict[str, str]:
    return {"SPIFFE_ENDPOINT_SOCKET": f"unix://{node.identities}/{name}.sock", "NSM_LOG_LEVEL": "INFO"}


def wait_lines(process: Process, *texts: str, count: int = 1, timeout: float = 60.0, since: int = 0) -> str:
    """The ``count``-th line of its log with all ``texts``, at or after byte ``since``. LabError when it ends first."""
    deadline = time.monotonic() + timeout
    log = Path(process.log)
    with watching(log, IN_MODIFY) as waker:
        ended = os.pidfd_open(process.pid)
        try:
            waker.register(ended)
            while True:
                alive = process.alive
                lines = [line for line in _lines(log, since) if all(text in line for text in texts)]
                if len(lines) >= count:
                    return lines[count - 1]
                left = deadline - time.monotonic()
                if not alive or left <= 0 or not waker.poll(left * 1000):
                    raise LabError(
                        f"{process.name} wrote {texts} {len(lines)} of {count} times:\n{tail(process)}"
                    )
        finally:
            os.close(ended)


def _lines(log: Path, since: int) -> list[str]:
    """Complete lines only."""
    whole, _, _ = log.read_bytes()[since:].decode(errors="replace").rpartition("\n")
    return whole.splitlines()
