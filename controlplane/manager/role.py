"""What a manager does with a connection: label it, choose a forwarder of the node, pass it on (reference §3.10).

A connection stays with its forwarder. A refresh asks nobody: what was chosen is used, so the registry may be away.
"""

from collections.abc import Sequence
from dataclasses import replace

from controlplane.manager.labels import NodeLabels
from controlplane.manager.local import LocalEndpoints
from controlplane.manager.mirror import Mirror
from controlplane.manager.prefixes import ExcludedPrefixes
from nsm.model.connection import Connection, State
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.service.hop import Closing, Incoming
from nsm.service.late_closes import LateCloses
from nsm.service.next_hop import NextHop
from nsm.session.matching import select_forwarders


class ManagerRole:
    """The role of a ``HopServer`` on every node."""

    def __init__(
        self,
        next_hop: NextHop,
        mirror: Mirror,
        local: LocalEndpoints,
        labels: NodeLabels,
        prefixes: ExcludedPrefixes,
        *,
        late: LateCloses,
        forwarder_service: str = "forwarder",
    ) -> None:
        """``late`` closes at forwarders that were away; ``forwarder_service`` is what forwarders register for."""
        self._next_hop = next_hop
        self._mirror = mirror
        self._local = local
        self._labels = labels
        self._prefixes = prefixes
        self._late = late
        self._forwarder_service = forwarder_service
        self._chosen: dict[str, str] = {}

    async def request(self, incoming: Incoming) -> Connection:
        """Through the first forwarder that accepts it.

        Raises:
            NsmError: NOT_FOUND for a service nobody registered or no forwarder may carry, UNAVAILABLE when the
                connection's own forwarder is not registered here; a forwarder's own error when it is the only one.
        """
        connection = replace(incoming.connection, labels=self._labels.added_to(incoming.connection.labels))
        connection = self._prefixes.added_to(connection)
        candidates = await self._candidates(connection)
        async with self._late.held(connection.id, incoming.deadline):
            return await self._through(candidates, connection, incoming)

    async def _through(
        self, candidates: Sequence[NetworkServiceEndpoint], connection: Connection, incoming: Incoming
    ) -> Connection:
        failures: list[tuple[str, NsmError]] = []
        for forwarder in candidates:
            try:
                answer = await self._next_hop.request(
                    forwarder.url, connection, incoming.preferences, deadline=incoming.deadline
                )
            except NsmError as error:
                failures.append((forwarder.name, error))
                continue
            self._chosen[connection.id] = forwarder.name
            self._late.answered(answer)
            return answer
        raise _failure(failures)

    async def close(self, closing: Closing) -> None:
        """Through the forwarder it went by; one that is away hears of it when it is back, see ``LateCloses``."""
        connection = closing.connection
        name = self._chosen.pop(connection.id, "") or _next_name(connection)
        local = self._local.get(name)
        if local is None:
            self._next_hop.forget(connection.id)
            self._late.keep(name, connection)
            return
        with self._late.made_up_for(name, connection):
            await self._next_hop.close(local.url, connection, deadline=closing.deadline)

    async def _candidates(self, connection: Connection) -> Sequence[NetworkServiceEndpoint]:
        reselect = connection.state is State.RESELECT_REQUESTED
        if reselect:
            self._chosen.pop(connection.id, None)
        elif name := self._chosen.get(connection.id):
            if (local := self._local.get(name)) is None:
                raise NsmError(
                    Code.UNAVAILABLE, f"the connection's forwarder {name!r} is not registered on this node"
                )
            return (local.endpoint,)
        service = await self._service(connection.network_service, connection.payload)
        here = self._local.serving(self._forwarder_service)
        found = select_forwarders(service, here, connection.labels, self._forwarder_service)
        if not found:
            why = f"none of {len(here)} has the labels its matches ask for" if here else "none is registered"
            raise NsmError(
                Code.NOT_FOUND,
                f"no forwarder of this node can carry {service.name!r}: {why}",
                field="connection.network_service",
            )
        preferred = "" if reselect else _next_name(connection)
        return sorted(found, key=lambda forwarder: forwarder.name != preferred)

    async def _service(self, name: str, payload: str) -> NetworkService:
        for service in await self._mirror.find_services(NetworkService(name=name, payload=payload)):
            if service.name == name:
                return service
        suffix = f" with payload {payload}" if payload else ""
        raise NsmError(
            Code.NOT_FOUND,
            f"network service {name!r}{suffix} is not registered",
            field="connection.network_service",
        )


def _next_name(connection: Connection) -> str:
    """The name of the segment after ours: the forwarder of an earlier life of this manager."""
    following = connection.route.following
    return following.name if following is not None else ""


def _failure(failures: Sequence[tuple[str, NsmError]]) -> NsmError:
    """The only forwarder's own error; of several, the last one's code and what each said."""
    if len(failures) == 1:
        return failures[0][1]
    said = "; ".join(f"{name}: {error}" for name, error in failures)
    return NsmError(failures[-1][1].code, f"every forwarder failed: {said}")
