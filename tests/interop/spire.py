"""SPIRE in the place of the embedded identity service: a server on the first node, an agent on each.

A component is told from the others by a supplementary group that it is started with (selector
``unix:supplementary_gid``): all run as root, and all of ours are the same Python. SPIRE dates certificates back by
10 s and renews them after half of their life, so an SVID of 20 s is replaced every 5 s or so. Keys are on disk, so that
a server or an agent that is started again is the same one.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
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
BUNDLE_PORT: Final = 8443
"""Where a server shows its bundle to the servers of other trust domains."""
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
  federation {{
    bundle_endpoint {{
      address = "{ip}"
      port = {bundle_port}
      profile "https_spiffe" {{}}
    }}
  }}
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


@dataclass(frozen=True, slots=True)
class Entry:
    """Who is started with ``group`` on ``node`` is ``spiffe_id``; ``ttl`` of its SVIDs in seconds."""

    node: Node
    spiffe_id: str
    group: int
    ttl: int

    def words(self, trust_domain: str, federates_with: Sequence[str]) -> list[str]:
        """As ``spire-server entry create`` and ``update`` want it."""
        path = self.spiffe_id.removeprefix(f"spiffe://{trust_domain}/")
        found = {
            "-entryID": f"{self.node.name}-{path.replace('/', '-')}",
            "-parentID": f"spiffe://{trust_domain}/node/{self.node.name}",
            "-spiffeID": self.spiffe_id,
            "-selector": f"unix:supplementary_gid:{self.group}",
            "-x509SVIDTTL": str(self.ttl),
        }
        words = [word for pair in found.items() for word in pair]
        for domain in federates_with:
            words += ["-federatesWith", f"spiffe://{domain}"]
        return words


@dataclass
class Registrations:
    """The entries of a SPIRE server, and the group that stands for each identity."""

    server: Node
    ttl: int = SHORT_TTL_S
    trust_domain: str = TRUST_DOMAIN
    groups: dict[str, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    federates_with: list[str] = field(default_factory=list)
    """The trust domains whose bundles each identity is given."""

    def add(self, node: Node, role: str, name: str, *, ttl: int = 0) -> None:
        """An identity for who is started with the group of ``name`` on that node; once is enough."""
        group = self.groups.setdefault(name, FIRST_GROUP + len(self.groups))
        entry = Entry(node, f"spiffe://{self.trust_domain}/{role}/{name}", group, ttl or self.ttl)
        if entry not in self.entries:
            self.ask("entry", "create", *entry.words(self.trust_domain, self.federates_with))
            self.entries.append(entry)

    def update(self) -> None:
        """Every entry as it would be made now."""
        for entry in self.entries:
            self.ask("entry", "update", *entry.words(self.trust_domain, self.federates_with))

    def ask(self, *words: str) -> str:
        """What the server's own command answers."""
        program = peers.find("spire-server")
        assert program is not None
        socket = str(self.server.directory / "spire" / "server.sock")
        done = subprocess.run(
            [program, *words, "-socketPath", socket], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise LabError(f"spire-server {' '.join(words[:3])} failed: {done.stderr or done.stdout}")
        return done.stdout


def server(registrations: Registrations) -> SpireDaemon:
    """The server, its configuration written."""
    node = registrations.server
    text = SERVER.format(
        ip=node.ip,
        port=PORT,
        bundle_port=BUNDLE_PORT,
        directory=_directory(node),
        trust_domain=registrations.trust_domain,
    )
    return _daemon(node, "server", text)


def agent(registrations: Registrations, node: Node) -> SpireDaemon:
    """A node's agent, with a join token for its first start."""
    identity = f"spiffe://{registrations.trust_domain}/node/{node.name}"
    answer = registrations.ask("token", "generate", "-spiffeID", identity)
    bundle = _directory(node) / "bundle.pem"
    bundle.write_text(registrations.ask("bundle", "show"))
    text = AGENT.format(
        ip=registrations.server.ip,
        port=PORT,
        directory=_directory(node),
        socket=agent_socket(node),
        bundle=bundle,
        trust_domain=registrations.trust_domain,
        token=answer.split()[1],
    )
    return _daemon(node, "agent", text)


def forget_keys(node: Node, part: str) -> None:
    """As after a new installation: the keys of a server that does not run, or all that such an agent knew."""
    kept = _directory(node) / part
    for file in [kept / "keys.json"] if part == "server" else list(kept.iterdir()):
        file.unlink()


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
