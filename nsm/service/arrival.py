"""How a call enters a hop: token, path, our segment, policies (reference §3.2, §3.3, §3.15 steps 1 to 4)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.identity import TokenSource
from nsm.model.path import Path
from nsm.policy.rules import Policies
from nsm.session.path import Return, check_path, put_tokens, step
from nsm.session.tokens import read_token_metadata
from nsm.transport.call import Call

_REFUSALS: Final = (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)

_LOG: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that was let in: the connection on our segment, and the caller's place for the answer."""

    connection: Connection
    ret: Return


class Gate:
    """Lets the calls of NetworkService in, under the name ``name``."""

    def __init__(self, name: str, tokens: TokenSource, policies: Policies, new_id: Callable[[], str]) -> None:
        self._name = name
        self._tokens = tokens
        self._policies = policies
        self._new_id = new_id

    def enter(self, connection: Connection, call: Call, method: str) -> Arrival:
        """Both tokens written, our segment stepped on, the policies passed.

        Raises:
            NsmError: INVALID_ARGUMENT for a path or token nobody well-behaved sends; PERMISSION_DENIED by a
                policy, which is also one ``audit`` event.
        """
        check_path(connection)
        self._check_name(connection.route)
        caller = read_token_metadata(call.metadata)
        stepped, ret = step(connection, self._name, self._new_id)
        own = self._tokens.token(call.peer.spiffe_id, call.peer.not_after, call.peer.shown)
        entered = put_tokens(stepped, caller, own)
        with self._audited(connection, call, method):
            self._policies.server(entered.route, call.peer.leaf)
            self._policies.caller(entered.route, call.peer.spiffe_id)
        return Arrival(entered, ret)

    def admit(self, arrival: Arrival, stored: Connection | None, call: Call, method: str) -> None:
        """Whether the caller may change ``stored``, the connection of that id; errors as of ``enter``."""
        if stored is not None:
            with self._audited(arrival.connection, call, method):
                self._policies.owner(stored.route, arrival.connection.route)

    def _check_name(self, route: Path) -> None:
        """A caller of our own name: we would stay on its segment, and no policy could tell the two of us apart."""
        if route.current is not None and route.current.name == self._name:
            where = f"connection.path.path_segments[{route.index}].name"
            raise invalid(where, "a caller of another name than ours: names are unique on a path", self._name)

    @contextmanager
    def _audited(self, asked: Connection, call: Call, method: str) -> Iterator[None]:
        """A refusal inside is one ``audit`` event."""
        try:
            yield
        except NsmError as error:
            if error.code in _REFUSALS:
                _LOG.warning(
                    "audit",
                    decision="denied",
                    method=method,
                    rule=error.field,
                    reason=error.message,
                    peer=call.peer.spiffe_id,
                    address=call.peer.address,
                    connection=asked.id,
                    service=asked.network_service,
                )
            raise
