"""SPIRE in the place of the embedded identity service: a server on the first node, an agent on each.

A component is told from the others by a supplementary group that it is started with (selector
``unix:supplementary_gid``): all run as root, and all of ours are the same Python. SPIRE dates certificates back by
10 s and renews them after half of their life, so an SVID of 20 s is replaced every 5 s or so. Keys are on disk, so that
a server or an agent that is started again is the same one.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import Process
from nsmctl.lab.topology import TRUST_DOMAIN, Node

from . import peers

SHORT_TTL_S: Final = 20
"""Renewed every 5 s or so."""
LONG_TTL_S: Final = 75
"""For Go components, whose calls may take 15 s: what they register ends that much before their SVID does (trap 8)."""
PORT: Final = 8081
FIRST_GROUP: Final = 70_000
_READY: Final = {"spire-server": "Starting Server APIs", "spire-agent": "Starting agent APIs"}

SERVER: Final = """
server {{
  bind_address = "{ip}"
  bind_port = "{port}"
  socket_path = "{directory}/server.sock"
  trust_domain = "{trust_domain}"
  data_dir = "{directory}/server"
  log_level = "INFO"
  experimental {{ cache_reload_interval = "1s" }}
}}
plugins {{
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{directory}/server/datastore.sqlite3"
    }}
  }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ keys_path = "{directory}/server/keys.json" }} }}
}}
"""
AGENT: Final = """
agent {{
  data_dir = "{directory}/agent"
  log_level = "INFO"
  server_address = "{ip}"
  server_port = "{port}"
  socket_path = "{socket}"
  trust_bundle_path = "{bundle}"
  trust_domain = "{trust_domain}"
  join_token = "{token}"
  experimental {{ sync_interval = "1s" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{directory}/agent" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class SpireDaemon(Daemon):
    """A SPIRE server or agent."""

    @property
    def argv(self) -> tuple[str, ...]:
        """Its file and arguments."""
        path = peers.find(self.program)
        assert path is not None, f"{self.program} is not installed"
        return (path, *self.arguments)


@dataclass(frozen=True, slots=True)
class Attested(Daemon):
    """A daemon started with a group of its own, by which the agent knows it."""

    inner: tuple[str, ...] = ()
    group: int = 0

    @classmethod
    def of(cls, daemon: Daemon, node: Node, group: int) -> "Attested":
        """``daemon`` with SPIRE's Workload API."""
        kept = {one.name: getattr(daemon, one.name) for one in fields(Daemon)}
        kept["env"] = {**daemon.env, "SPIFFE_ENDPOINT_SOCKET": f"unix://{agent_socket(node)}"}
        return cls(**kept, inner=daemon.argv, group=group)

    @property
    def argv(self) -> tuple[str, ...]:
        """Through ``setpriv``, which becomes the program."""
        return ("setpriv", f"--groups={self.group}", "--", *self.inner)


def agent_socket(node: Node) -> Path:
    """The Workload API of a node's agent."""
    return node.directory / "spire" / "agent.sock"


@dataclass
class Registrations:
    """The entries of a SPIRE server, and the group that stands for each identity."""

    server: Node
    ttl: int = SHORT_TTL_S
    groups: dict[str, int] = field(default_factory=dict)

    def add(self, node: Node, role: str, name: str) -> None:
        """An identity for who is started with the group of ``name`` on that node."""
        group = self.groups.setdefault(name, FIRST_GROUP + len(self.groups))
        self.ask(
            "entry",
            "create",
            "-parentID",
            f"spiffe://{TRUST_DOMAIN}/node/{node.name}",
            "-spiffeID",
            f"spiffe://{TRUST_DOMAIN}/{role}/{name}",
            "-selector",
            f"unix:supplementary_gid:{group}",
            "-x509SVIDTTL",
            str(self.ttl),
        )

    def ask(self, *words: str) -> str:
        """What the server's own command answers."""
        program = peers.find("spire-server")
        assert program is not None
        socket = str(self.server.directory / "spire" / "server.sock")
        done = subprocess.run(
            [program, *words, "-socketPath", socket], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise LabError(f"spire-server {' '.join(words[:2])} failed: {done.stderr or done.stdout}")
        return done.stdout


def server(node: Node) -> SpireDaemon:
    """The server, its configuration written."""
    text = SERVER.format(ip=node.ip, port=PORT, directory=_directory(node), trust_domain=TRUST_DOMAIN)
    return _daemon(node, "server", text)


def agent(registrations: Registrations, node: Node) -> SpireDaemon:
    """A node's agent, with a join token for this start."""
    identity = f"spiffe://{TRUST_DOMAIN}/node/{node.name}"
    answer = registrations.ask("token", "generate", "-spiffeID", identity)
    bundle = _directory(node) / "bundle.pem"
    bundle.write_text(registrations.ask("bundle", "show"))
    text = AGENT.format(
        ip=registrations.server.ip,
        port=PORT,
        directory=_directory(node),
        socket=agent_socket(node),
        bundle=bundle,
        trust_domain=TRUST_DOMAIN,
        token=answer.split()[1],
    )
    return _daemon(node, "agent", text)


def wait_ready(daemon: Daemon, process: Process, since: int) -> None:
    """Until it serves."""
    peers.wait_lines(process, _READY[daemon.program], since=since)


def _directory(node: Node) -> Path:
    directory = node.directory / "spire"
    directory.mkdir(parents=True, exist_ok=True)
    for part in ("server", "agent"):
        (directory / part).mkdir(exist_ok=True)
    return directory


def _daemon(node: Node, part: str, text: str) -> SpireDaemon:
    file = _directory(node) / f"{part}.conf"
    file.write_text(text)
    log = node.directory / f"spire-{part}.log"
    arguments = ("run", "-config", str(file))
    return SpireDaemon(f"{node.name}/spire-{part}", f"spire-{part}", node.netns, log, {}, arguments)


@contextmanager
def attested_as(group: int) -> Iterator[None]:
    """This process in a group, so that an agent knows it."""
    before = os.getgroups()
    os.setgroups([group])
    try:
        yield
    finally:
        os.setgroups(before)
