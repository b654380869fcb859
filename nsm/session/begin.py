"""Which connection a Request or Close is really about (reference §3.4).

Upstream's ``begin`` keeps, per connection id, what was last agreed on. ``BeginTable`` holds that state and
decides; the queue that runs the calls of one id one after the other lives with the event loop.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from nsm.model.connection import Connection, State
from nsm.model.context import ConnectionContext
from nsm.model.errors import Code, NsmError, invalid

DEFAULT_LIMIT: Final = 65536
"""Connections one process keeps."""


def merge(returned: Connection | None, requested: Connection, current: Connection | None) -> Connection:
    """What a client asks the next hop for: the user's changes applied to the connection as it is now.

    ``returned`` is what the user was last given, ``requested`` what the user asks now, ``current`` what
    refresh and heal have made of it since. A user can change the endpoint's name and the context, no more.
    """
    if returned is None or current is None:
        return requested
    name = current.network_service_endpoint_name
    if requested.network_service_endpoint_name != returned.network_service_endpoint_name:
        name = requested.network_service_endpoint_name
    context = _merge_context(returned.context, requested.context, current.context)
    return replace(current, network_service_endpoint_name=name, context=context)


def _merge_context(
    returned: ConnectionContext | None, requested: ConnectionContext | None, current: ConnectionContext | None
) -> ConnectionContext | None:
    if current is None:
        return requested
    if returned == requested:
        return current
    before, wanted = returned or ConnectionContext(), requested or ConnectionContext()
    return replace(
        current,
        ip_context=wanted.ip_context,
        ethernet_context=wanted.ethernet_context,
        dns_context=wanted.dns_context,
        mtu=wanted.mtu,
        extra_context=_merge_map(before.extra_context, wanted.extra_context, current.extra_context),
    )


def _merge_map(
    returned: Mapping[str, str], requested: Mapping[str, str], current: Mapping[str, str]
) -> Mapping[str, str]:
    """Three-way merge by key; a key only the request has is kept (upstream loses it)."""
    removed = returned.keys() - requested.keys()
    changed = {key: value for key, value in requested.items() if returned.get(key) != value}
    return {**{key: value for key, value in current.items() if key not in removed}, **changed}


def reselect(connection: Connection) -> Connection:
    """The Request that asks for another endpoint: context and path stay, mechanism and endpoint go."""
    return replace(
        connection, mechanism=None, network_service_endpoint_name="", state=State.RESELECT_REQUESTED
    )


class EntryState(Enum):
    """Life of an id; an id the table does not know is CLOSED."""

    NEW = "new"
    ESTABLISHED = "established"
    CLOSED = "closed"


class Admission(NamedTuple):
    """What to do with a Request: use ``connection``, after closing ``BeginTable.stored`` if it must be."""

    connection: Connection
    must_close_first: bool
    is_refresh: bool


@dataclass(slots=True)
class _Entry:
    state: EntryState = EntryState.NEW
    current: Connection | None = None
    returned: Connection | None = None


class BeginTable:
    """What was last agreed on, by our own segment's id; at most ``limit`` ids.

    ``client=True`` gives the client's side: a Request is merged with the current connection (``merge``).
    Calls for one id must come one after the other.
    """

    def __init__(self, *, client: bool = False, limit: int = DEFAULT_LIMIT) -> None:
        self._client = client
        self._limit = limit
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        """How many ids are kept."""
        return len(self._entries)

    def state(self, connection_id: str) -> EntryState:
        """Where that id is in its life."""
        entry = self._entries.get(connection_id)
        return EntryState.CLOSED if entry is None else entry.state

    def stored(self, connection_id: str) -> Connection | None:
        """The connection last agreed on; also still there while a reselect is closing it."""
        entry = self._entries.get(connection_id)
        return None if entry is None else entry.current

    def connections(self) -> tuple[Connection, ...]:
        """Every established connection, for draining and for the operator's views."""
        live = (e.current for e in self._entries.values() if e.state is EntryState.ESTABLISHED)
        return tuple(connection for connection in live if connection is not None)

    def on_request(self, connection_id: str, requested: Connection) -> Admission:
        """Admit a Request.

        RESELECT_REQUESTED on an established id means: close what is stored, then treat it as new. A client
        keeps its entry even when that fails, because healing goes on trying.

        Raises:
            NsmError: INVALID_ARGUMENT for an empty id, RESOURCE_EXHAUSTED when the table is full.
        """
        if not connection_id:
            raise invalid("connection.id", "a non-empty id", connection_id)
        entry = self._entries.get(connection_id)
        if entry is None:
            if len(self._entries) >= self._limit:
                raise NsmError(
                    Code.RESOURCE_EXHAUSTED,
                    f"{self._limit} connections are open already: close some, or raise the limit",
                )
            entry = self._entries[connection_id] = _Entry()
        established = entry.state is EntryState.ESTABLISHED
        if established and requested.state == State.RESELECT_REQUESTED:
            if not self._client:
                entry.state = EntryState.NEW
            return Admission(requested, must_close_first=True, is_refresh=False)
        connection = merge(entry.returned, requested, entry.current) if self._client else requested
        return Admission(connection, must_close_first=False, is_refresh=established)

    def on_success(
        self, connection_id: str, connection: Connection, *, event: bool = False
    ) -> Connection | None:
        """Store what the next hop agreed to and give back the answer, state UP.

        ``event`` marks a Request of our own (refresh, heal), whose result the user has not been given.
        ``None`` = the id was closed meanwhile; the caller closes what it has just built.
        """
        entry = self._entries.get(connection_id)
        if entry is None:
            return None
        agreed = connection if connection.state is State.UP else replace(connection, state=State.UP)
        entry.state, entry.current = EntryState.ESTABLISHED, agreed
        if not event:
            entry.returned = agreed
        return agreed

    def on_failure(self, connection_id: str) -> None:
        """A Request failed: a first one is forgotten, a failed refresh keeps the connection."""
        entry = self._entries.get(connection_id)
        if entry is not None and entry.state is EntryState.NEW:
            del self._entries[connection_id]

    def on_close(self, connection_id: str) -> Connection | None:
        """The stored connection to close, forgotten whatever becomes of the Close.

        ``None`` = nothing established under that id: answer success (trap 48).
        """
        entry = self._entries.get(connection_id)
        if entry is None or entry.state is not EntryState.ESTABLISHED:
            return None
        del self._entries[connection_id]
        return entry.current
