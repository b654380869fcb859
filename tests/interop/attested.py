"""A lab whose identities come from SPIRE: every daemon and workload is attested by its node's agent."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from nsmctl.lab import namespaces
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.identities import OPERATOR
from nsmctl.lab.processes import Process, kill
from nsmctl.lab.state import State
from nsmctl.lab.topology import Node
from nsmctl.lab.world import World
from tests.fakes.caller import Caller, caller

from . import federation, govpp, spire
from .casts import Cast, CastWorld

FOREIGN: Final = "far.nsm"
"""The trust domain of the last node where two are federated."""


class SpireWorld(CastWorld):
    """A cast's lab with SPIRE as its Workload API."""

    def __init__(self, recorded: State, cast: Cast) -> None:
        super().__init__(recorded, cast)
        ttl = spire.LONG_TTL_S if cast.has_go else spire.SHORT_TTL_S
        nodes = recorded.topology.nodes
        self.registrations = spire.Registrations(nodes[0], ttl)
        self.foreign = spire.Registrations(nodes[-1], ttl, FOREIGN, self.registrations.groups)
        """Of the last node, where that is in a trust domain of its own."""
        self._spire: dict[str, spire.SpireDaemon] = {}

    def registrations_of(self, node: Node) -> spire.Registrations:
        """The entries of the server that the node's agent asks."""
        is_foreign = self.cast.is_federated and node == self.foreign.server
        return self.foreign if is_foreign else self.registrations

    def prepare_identities(self) -> None:
        """Servers, agents, and an entry for each daemon."""
        nodes = self.topology.nodes
        self._start_spire(spire.server(self.registrations))
        if self.cast.is_federated:
            self._start_spire(spire.server(self.foreign))
            federation.federate(self.registrations, self.foreign)
            federation.federate(self.foreign, self.registrations)
        for node in nodes:
            self._start_spire(spire.agent(self.registrations_of(node), node))
            for role in ("manager", "forwarder"):
                self.identify(node, role, f"{role}-{node.name}")
            self.identify(node, "operator", OPERATOR)
        self.identify(nodes[0], "registry", "registry")

    def identify(self, node: Node, role: str, name: str) -> None:
        """An entry at the server; the agent hears of it within a few seconds."""
        self.registrations_of(node).add(node, role, name)

    def launch(self, daemon: Daemon) -> tuple[Process, int]:
        """As the base's; what needs an identity is started so that the agent knows it."""
        if isinstance(daemon, (spire.SpireDaemon, govpp.VppDaemon)):
            return super().launch(daemon)
        # A workload's daemon bears its name, the lab's own ``node/role``.
        node, _, role = daemon.name.partition("/")
        if role:
            place = self.topology.node(node)
            name = role if role == "registry" else f"{role}-{node}"
        else:
            place = self.topology.node(self.state.workloads[node].node)
            name = node
        return super().launch(spire.Attested.of(daemon, place, self.registrations.groups[name]))

    def remove_workload(self, *names: str) -> None:
        """As the base's; a workload's entry stays, for its group is its own."""
        self.end(*names)
        for name in names:
            namespaces.delete(self.state.workloads[name].space)
            self.record(self.state.without_workload(name))

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Servers or agents (``n1/spire-agent``) are killed; they serve again, as the same ones, after the block."""
        for name in names:
            kill(self.state.processes[name])
        try:
            yield
        finally:
            for name in names:
                self._start_spire(self._spire[name])

    def reinstall(self) -> None:
        """Server and agents are killed and come back without their keys: a new CA in a bundle that has the old one."""
        nodes = self.topology.nodes
        first = spire.server(self.registrations)
        for name in (first.name, *(f"{node.name}/spire-agent" for node in nodes)):
            kill(self.state.processes[name])
        spire.forget_keys(nodes[0], "server")
        self._start_spire(first)
        for node in nodes:
            spire.forget_keys(node, "agent")
            self._start_spire(spire.agent(self.registrations, node))

    def _start_spire(self, daemon: spire.SpireDaemon) -> None:
        self._spire[daemon.name] = daemon
        process, since = self.launch(daemon)
        spire.wait_ready(daemon, process, since)


@contextmanager
def as_operator(world: World) -> Iterator[None]:
    """This process is the lab's operator, also to SPIRE's agents if it has any."""
    if not isinstance(world, SpireWorld):
        yield
        return
    with spire.attested_as(world.registrations.groups[OPERATOR]):
        yield


def spire_of(world: World) -> SpireWorld:
    """A world whose identities are known to come from SPIRE."""
    assert isinstance(world, SpireWorld)
    return world


@asynccontextmanager
async def caller_of(
    world: SpireWorld, node: Node, name: str, url: str, tokens: Any = None
) -> AsyncIterator[Caller]:
    """A caller under an identity that the node's agent gives to the group of ``name``."""
    endpoint = f"unix://{spire.agent_socket(node)}"
    with spire.attested_as(world.registrations.groups[name]):
        async with caller(name, url, node.identities, tokens=tokens, endpoint=endpoint) as made:
            yield made
