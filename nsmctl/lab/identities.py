"""The lab's identities: the commands of ``nsm-identity`` as two real hosts would use them.

The first node holds the authority (``init``); every further node gets an intermediate signed by it (``sign``), as a
file that an operator would carry over. Each node serves its own registration file, which is read again when a
workload is added; the socket of a new identity appearing is the sign that it is served.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from nsmctl.errors import LabError
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.topology import TRUST_DOMAIN, Node, Topology
from nsmctl.lab.watch import wait_for_path

__all__ = ["OPERATOR", "TRUST_DOMAIN", "prepare", "register", "unregister"]

OPERATOR: Final = "operator"
_SOCKET_S: Final = 30.0


def prepare(topology: Topology) -> Iterator[Daemon]:
    """Authorities and registration files of all nodes; the identity service of each, to be started."""
    first = topology.nodes[0]
    _command("init", "--authority", str(_authority(first)), "--trust-domain", TRUST_DOMAIN)
    for node in topology.nodes:
        if node != first:
            _command(
                "sign", node.name, "--authority", str(_authority(first)), "--output", str(_authority(node))
            )
        roles = {
            "manager": f"manager-{node.name}",
            "forwarder": f"forwarder-{node.name}",
            "operator": OPERATOR,
        }
        if node == first:
            roles["registry"] = "registry"
        _write(node, [_entry(role, name) for role, name in roles.items()])
        yield _service(node)


def register(node: Node, role: str, name: str) -> None:
    """Add an identity to a running node and wait until it is served."""
    _write(node, [*_entries(node), _entry(role, name)])
    wait_for_path(node.identities / f"{name}.sock", timeout=_SOCKET_S)


def unregister(node: Node, name: str) -> None:
    """Take an identity away again."""
    suffix = f"/{name}"
    _write(node, [entry for entry in _entries(node) if not entry["spiffe_id"].endswith(suffix)])


def _service(node: Node) -> Daemon:
    arguments = ("serve", "--authority", str(_authority(node)), "--config", str(_registrations(node)))
    return Daemon(
        f"{node.name}/identity",
        "nsm-identity",
        node.netns,
        node.directory / "identity.log",
        {"NSM_IDENTITY_DIR": str(node.identities), "NSM_LOG_FORMAT": "json"},
        arguments,
    )


def _entry(role: str, name: str) -> dict[str, Any]:
    return {"spiffe_id": f"spiffe://{TRUST_DOMAIN}/{role}/{name}", "uid": os.getuid()}


def _registrations(node: Node) -> Path:
    return node.directory / "identities.yaml"


def _authority(node: Node) -> Path:
    return node.directory / "authority.pem"


def _entries(node: Node) -> list[dict[str, Any]]:
    content: dict[str, Any] = yaml.safe_load(_registrations(node).read_text())
    return list(content["entries"])


def _write(node: Node, entries: list[dict[str, Any]]) -> None:
    """Replace the registration file as a whole: the service never reads half of it."""
    file = _registrations(node)
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump({"directory": str(node.identities), "entries": entries}))
    new.replace(file)


def _command(*arguments: str) -> None:
    program = Path(sys.executable).with_name("nsm-identity")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"nsm-identity {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
