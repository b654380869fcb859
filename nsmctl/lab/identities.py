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

__all__ = [
    "OPERATOR",
    "TRUST_DOMAIN",
    "authority",
    "prepare",
    "register",
    "replace_root",
    "set_svid_ttl",
    "unregister",
]

OPERATOR: Final = "operator"
_SOCKET_S: Final = 30.0


def prepare(topology: Topology) -> Iterator[Daemon]:
    """Authorities and registration files of all nodes; the identity service of each, to be started."""
    first = topology.nodes[0]
    _command("init", "--authority", str(authority(first)), "--trust-domain", TRUST_DOMAIN)
    _sign_others(topology)
    for node in topology.nodes:
        roles = {
            "manager": f"manager-{node.name}",
            "forwarder": f"forwarder-{node.name}",
            "operator": OPERATOR,
        }
        if node == first:
            roles["registry"] = "registry"
        _write(node, {"entries": [_entry(role, name) for role, name in roles.items()]})
        yield _service(node)


def register(node: Node, role: str, name: str) -> None:
    """Add an identity to a running node and wait until it is served."""
    _change(node, entries=[*_entries(node), _entry(role, name)])
    wait_for_path(node.identities / f"{name}.sock", timeout=_SOCKET_S)


def unregister(node: Node, name: str) -> None:
    """Take an identity away again."""
    suffix = f"/{name}"
    _change(node, entries=[entry for entry in _entries(node) if not entry["spiffe_id"].endswith(suffix)])


def set_svid_ttl(node: Node, ttl: str) -> None:
    """Have a running node's SVIDs live for ``ttl`` (``10s``, ``1h``) from now on."""
    _change(node, svid_ttl=ttl)


def replace_root(topology: Topology, step: str) -> None:
    """One step of ``nsm-identity rotate-ca``, and what the other nodes get after it; they read it by themselves."""
    _command("rotate-ca", step, "--authority", str(authority(topology.nodes[0])))
    _sign_others(topology)


def authority(node: Node) -> Path:
    """The node's authority file."""
    return node.directory / "authority.pem"


def _sign_others(topology: Topology) -> None:
    """The files that an operator would carry from the first node to the others; each is replaced as a whole."""
    first, *others = topology.nodes
    for node in others:
        new = authority(node).with_suffix(".new")
        _command("sign", node.name, "--authority", str(authority(first)), "--output", str(new))
        new.replace(authority(node))


def _service(node: Node) -> Daemon:
    arguments = ("serve", "--authority", str(authority(node)), "--config", str(_registrations(node)))
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


def _content(node: Node) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(_registrations(node).read_text())
    return content


def _entries(node: Node) -> list[dict[str, Any]]:
    return list(_content(node)["entries"])


def _change(node: Node, **changes: Any) -> None:
    _write(node, {**_content(node), **changes})


def _write(node: Node, content: dict[str, Any]) -> None:
    """Replace the registration file as a whole: the service never reads half of it."""
    file = _registrations(node)
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump({"directory": str(node.identities), **content}))
    new.replace(file)


def _command(*arguments: str) -> None:
    program = Path(sys.executable).with_name("nsm-identity")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"nsm-identity {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
