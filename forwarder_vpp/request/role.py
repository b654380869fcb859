"""What a forwarder does with a connection: find the endpoint, agree on both mechanisms, realise both ends in one pass.

Way out: everything is chosen (keys, VNI, ports, names). The next hop answers. Way back: the intent is stored, then
carried out, then the caller is answered. A refresh whose intent is as before touches neither dataplane nor disk on
the answer's path. A Request that fails leaves what was there before, which for a new one is nothing, here and behind.
"""

import asyncio
import secrets
import string
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from forwarder_vpp.dataplane.contract.dataplane import Dataplane
from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId
from forwarder_vpp.mechanisms.tunnel import Choice
from forwarder_vpp.reconciler.reconciler import Reconciler
from forwarder_vpp.request import metrics
from forwarder_vpp.request.absent import named_if_absent
from forwarder_vpp.request.claims import Claims, claims_of
from forwarder_vpp.request.ends import ClientEnd, Ends
from forwarder_vpp.request.inherited import has_lived, left_links
from forwarder_vpp.request.owner import owner_of
from forwarder_vpp.request.validation import (
    DEFAULT_MTU,
    check_connection,
    check_context,
    check_mtu,
    check_payload,
)
from forwarder_vpp.store.base import Store
from forwarder_vpp.store.row import Row
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext
from nsm.model.endpoint import NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, IP, Mechanism
from nsm.service.discovery import Candidates, Discovery, RoundRobin
from nsm.service.hop import Closing, Incoming
from nsm.service.late_closes import LateCloses
from nsm.session.path import put_metrics

UNDO_TIMEOUT: Final = 5.0
"""Seconds for the Close at the next hop after a Request that failed here."""

_ALPHABET: Final = string.ascii_letters + string.digits
_LOCAL_URLS: Final = ("unix:", "inode:")
_LOG: Final = structlog.get_logger(__name__)


class Hop(Protocol):
    """The calls to the next hop; ``NextHop`` is one."""

    async def request(
        self, url: str, connection: Connection, preferences: Sequence[Mechanism], *, deadline: float
    ) -> Connection:
        """The next hop's answer on our segment."""

    async def close(self, url: str, connection: Connection, *, deadline: float) -> None:
        """Close there."""

    async def leave(self, url: str, connection: Connection, *, deadline: float) -> None:
        """Close there, once the connection has left that hop."""

    def forget(self, connection_id: str) -> None:
        """No more news of it."""


class KeyMaker(Protocol):
    """Makes key pairs."""

    def __call__(self) -> tuple[str, str]:
        """A private key and its public key, standard base64."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try with one next hop, on its way out."""

    incoming: Incoming
    connection: Connection
    client: ClientEnd
    url: str
    types: tuple[str, ...]
    choice: Choice
    known: Row | None

    @property
    def id(self) -> str:
        """Our own segment's id."""
        return self.connection.id


class ForwarderRole:
    """The role of the forwarder's ``HopServer``.

    ``instance`` tells this forwarder's objects from those of another one; ``clock`` gives Unix seconds.
    """

    def __init__(
        self,
        dataplane: Dataplane,
        reconciler: Reconciler,
        store: Store,
        discovery: Discovery,
        next_hop: Hop,
        *,
        instance: str,
        new_keys: KeyMaker,
        vxlan_port: int = 4789,
        priority: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._dataplane = dataplane
        self._reconciler = reconciler
        self._store = store
        self._discovery = discovery
        self._next_hop = next_hop
        self._instance = instance
        self._clock = clock
        self._late = LateCloses(next_hop.leave, discovery.arrivals, clock=clock)
        self._turns = RoundRobin()
        self._claims = Claims()
        self._ends = Ends(
            dataplane,
            self._claims,
            vxlan_port=vxlan_port,
            priority=priority,
            new_keys=new_keys,
            random_name=_random_name,
        )
        self._rows: dict[str, Row] = {}
        self._departures: dict[str, asyncio.Future[None]] = {}
        self._undoing: set[asyncio.Task[None]] = set()

    # -- start and end -------------------------------------------------------------------------------

    async def adopt(self) -> list[tuple[Connection, float]]:
        """Take over the stored connections: what is right is left alone, what has ended is removed.

        Those that live on, on our segment, and the seconds each has left.
        """
        now = self._clock()
        rows = await self._store.load()
        alive: list[Row] = []
        ended: list[Row] = []
        for row in rows:
            (ended if row.intent.expires <= now else alive).append(row)
        for row in alive:
            self._rows[row.id] = replace(row, url=_lasting(row.url))
            self._claims.take(row.id, _claims_of_row(row))
        await self._reconciler.start([row.intent for row in alive], [row.intent for row in ended])
        _LOG.info("connections.adopted", alive=len(alive), ended=len(ended))
        return [(row.connection, row.intent.expires - now) for row in alive]

    def removed(self, connection_id: str) -> None:
        """Nothing of a closed connection is left in the dataplane: its row and its claims may go."""
        if connection_id not in self._rows:
            self._claims.keep(connection_id, ())
            self._store.remove_later(connection_id)
        departure = self._departures.pop(connection_id, None)
        if departure is not None:
            departure.set_result(None)

    def users_of(self, netns: NetnsId) -> tuple[str, ...]:
        """The connections with an interface in a namespace."""
        return tuple(
            row.id
            for row in self._rows.values()
            if any(
                isinstance(end, KernelEnd) and end.netns == netns
                for end in (row.intent.client, row.intent.endpoint)
            )
        )

    async def counted(self) -> dict[str, dict[str, str]]:
        """The counters of every connection by id, as path metrics."""
        found = await self._dataplane.counters(self._reconciler.intents())
        return {connection_id: dict(metrics.counters(pair)) for connection_id, pair in found.items()}

    def let_go(self) -> None:
        """No connection is wanted here any more; no next hop is told, for another forwarder may carry them on."""
        for connection_id in tuple(self._rows):
            del self._rows[connection_id]
            self._reconciler.remove(connection_id)

    async def stop(self) -> None:
        """Wait for what is being undone; what is away stays away."""
        if self._undoing:
            await asyncio.wait(tuple(self._undoing))
        await self._late.stop()

    # -- Request -------------------------------------------------------------------------------------

    async def request(self, incoming: Incoming) -> Connection:
        """Both ends realised, or what was before.

        Raises:
            NsmError: INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION, UNIMPLEMENTED with the field;
                NOT_FOUND for what is not registered; RESOURCE_EXHAUSTED when the disk is full; UNAVAILABLE when
                the dataplane or every next hop is; what the only next hop answered.
        """
        check_connection(incoming.connection)
        async with self._late.held(incoming.connection.id, incoming.deadline):
            answer = await self._first_of(incoming)
        self._late.answered(answer)
        return answer

    async def _first_of(self, incoming: Incoming) -> Connection:
        """Through the first endpoint that accepts it."""
        known = self._rows.get(incoming.connection.id)
        errors: list[NsmError] = []
        found = await self._candidates(incoming.connection, known)
        for endpoint in found.endpoints:
            try:
                attempt = self._way_out(incoming, endpoint, found.payload, known)
                with named_if_absent(endpoint):
                    answer = await self._ask(attempt)
            except NsmError as error:
                self._give_back(incoming.connection.id)
                if len(found.endpoints) == 1 or error.code is Code.INVALID_ARGUMENT:
                    raise
                errors.append(error)
                continue
            except BaseException:
                self._give_back(incoming.connection.id)
                raise
            return await self._way_back(attempt, answer)
        raise _all_failed(errors)

    async def _candidates(self, connection: Connection, known: Row | None) -> Candidates:
        """A refresh goes where the connection goes, and asks nobody."""
        name = connection.network_service_endpoint_name
        if known is not None and known.url and name:
            return Candidates(known.intent.payload, (NetworkServiceEndpoint(name=name, url=known.url),))
        found = await self._discovery.candidates(connection)
        return replace(found, endpoints=self._turns.order(connection.network_service, found.endpoints))

    def _way_out(
        self, incoming: Incoming, endpoint: NetworkServiceEndpoint, service_payload: str, known: Row | None
    ) -> Attempt:
        """Choose everything; nothing is written yet."""
        connection = incoming.connection
        payload = connection.payload or service_payload or (known.intent.payload if known else "") or IP
        check_payload(payload)
        client = self._ends.client(connection, incoming.preferences, payload, known)
        types = tuple(self._ends.offers(payload, is_local=endpoint.url.startswith(_LOCAL_URLS)))
        if not types:
            raise self._ends.no_offer(payload)
        choice = self._ends.requesting_choice(types, connection.id, known.endpoint if known else Choice())
        mtu = _smallest(connection.ctx.mtu or DEFAULT_MTU, client.mtu)
        check_mtu(mtu, connection.ctx)
        outgoing = replace(
            connection,
            payload=payload,
            network_service_endpoint_name=endpoint.name,
            mechanism=_agreed_before(known, types),
            context=replace(connection.ctx, mtu=mtu),
        )
        return Attempt(incoming, outgoing, client, endpoint.url, types, choice, known)

    async def _ask(self, attempt: Attempt) -> Connection:
        """The next hop's answer. One that is not where it was is looked up again, once."""
        preferences = self._ends.preferences(attempt.types, attempt.choice)
        deadline = attempt.incoming.deadline
        try:
            return await self._next_hop.request(
                attempt.url, attempt.connection, preferences, deadline=deadline
            )
        except NsmError as error:
            if attempt.known is None or error.code is not Code.UNAVAILABLE:
                raise
            endpoint = await self._discovery.by_name(attempt.connection.network_service_endpoint_name)
            is_elsewhere = endpoint.url != attempt.url
            if not is_elsewhere or endpoint.url.startswith(_LOCAL_URLS) != attempt.url.startswith(
                _LOCAL_URLS
            ):
                raise
            answer = await self._next_hop.request(
                endpoint.url, attempt.connection, preferences, deadline=deadline
            )
            self._rows[attempt.id] = replace(attempt.known, url=endpoint.url)
            return answer

    async def _way_back(self, attempt: Attempt, answer: Connection) -> Connection:
        """Realise both ends; on failure the next hop of a new connection is told to close it."""
        known = self._rows.get(attempt.id)
        try:
            row, built = self._agreed(attempt, answer, known)
            await self._claim(row.intent, attempt.incoming.deadline)
            if known is None and has_lived(attempt.incoming.connection):
                await self._inherit(row.intent, attempt.incoming.connection)
            made = await self._realise(row, known, attempt.incoming.deadline)
        except BaseException as error:
            self._give_back(attempt.id)
            if known is None:
                undo = self._close_behind(attempt.url, answer)
                if not isinstance(error, asyncio.CancelledError):
                    await asyncio.shield(undo)
            raise
        self._rows[row.id] = row
        self._give_back(row.id)
        counted = {} if made else await self._counters(row.intent)
        return put_metrics(built, {**self._interfaces(attempt, answer), **counted})

    def _agreed(self, attempt: Attempt, answer: Connection, known: Row | None) -> tuple[Row, Connection]:
        """The intent that answer and choices make, and our own answer."""
        check_context(answer.ctx)
        endpoint, limit = self._ends.endpoint_intent(
            answer.mechanism, attempt.types, attempt.choice, answer.ctx
        )
        mtu = _smallest(answer.ctx.mtu or DEFAULT_MTU, attempt.client.mtu, limit)
        check_mtu(mtu, answer.ctx)
        context: ConnectionContext = replace(answer.ctx, mtu=mtu)
        payload = attempt.connection.payload
        intent = Intent(
            id=attempt.id,
            owner=owner_of(self._instance, attempt.id),
            payload=payload,
            mtu=mtu,
            client=self._ends.client_intent(attempt.client, context),
            endpoint=endpoint,
            expires=_expiry(answer, self._clock()),
        )
        built = replace(answer, mechanism=attempt.client.mechanism, context=context, payload=payload)
        assert answer.mechanism is not None
        url = known.url if known is not None and attempt.known is not None else attempt.url
        row = Row(
            intent=intent,
            client=attempt.client.choice,
            endpoint=attempt.choice,
            next_cls=answer.mechanism.cls,
            next_type=answer.mechanism.type,
            next_parameters=dict(answer.mechanism.without(INODE_URL).parameters),
            connection=built,
            url=url,
        )
        return row, built

    async def _claim(self, intent: Intent, deadline: float) -> None:
        """What the intent has for itself alone; a closed connection that is still being cleared is waited for."""
        claims = tuple(claims_of(intent))
        with suppress(TimeoutError):  # then the conflict is the answer
            async with asyncio.timeout_at(deadline):
                while leaving := [
                    each for each in self._claims.holders(intent.id, claims) if self._is_leaving(each)
                ]:
                    loop = asyncio.get_running_loop()
                    await asyncio.wait({self._departures.setdefault(leaving[0], loop.create_future())})
        self._claims.take(intent.id, claims)

    async def _inherit(self, intent: Intent, connection: Connection) -> None:
        """Make room in the namespaces of a connection that another forwarder had."""
        for netns, alias in left_links(intent, connection):
            if await self._dataplane.namespaces.remove_foreign(netns, alias):
                _LOG.info("link.inherited", connection=intent.id, alias=alias)

    def _is_leaving(self, connection_id: str) -> bool:
        return connection_id not in self._rows and self._reconciler.is_busy_with(connection_id)

    async def _realise(self, row: Row, known: Row | None, deadline: float) -> bool:
        """Store, then carry out; whether anything had to be written. What was stored before comes back on failure."""
        is_refresh = known is not None and known.intent == row.intent
        if is_refresh:
            self._store.put_later(row)
        else:
            await self._store.put(row)
        try:
            async with asyncio.timeout_at(deadline):
                return await self._reconciler.realise(row.intent, deadline)
        except BaseException as error:
            if known is not None:
                self._store.put_later(known)
            elif not self._reconciler.is_busy_with(row.id):
                self._store.remove_later(row.id)
            if isinstance(error, TimeoutError):
                text = "the dataplane was not ready before the deadline"
                raise NsmError(Code.DEADLINE_EXCEEDED, text) from error
            raise

    def _give_back(self, connection_id: str) -> None:
        """Every claim that the committed connection does not need."""
        row = self._rows.get(connection_id)
        self._claims.keep(connection_id, _claims_of_row(row) if row is not None else ())

    def _close_behind(self, url: str, answer: Connection) -> asyncio.Task[None]:
        """Take back what the next hop has agreed to, in a time of its own.

        Without the file it came with: that is closed with the call, and its number may be another's by then.
        """
        mechanism = answer.mechanism
        behind = replace(answer, mechanism=mechanism and mechanism.without(INODE_URL))

        async def close() -> None:
            deadline = asyncio.get_running_loop().time() + UNDO_TIMEOUT
            try:
                with self._late.made_up_for(behind.network_service_endpoint_name, behind):
                    await self._next_hop.close(url, behind, deadline=deadline)
            except NsmError as error:
                _LOG.warning("undo.next_hop_not_closed", connection=behind.id, reason=str(error))

        task = asyncio.create_task(close(), name=f"close behind {answer.id}")
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)
        return task

    def _interfaces(self, attempt: Attempt, answer: Connection) -> dict[str, str]:
        assert answer.mechanism is not None
        return metrics.interfaces(attempt.client.mechanism, answer.mechanism)

    async def _counters(self, intent: Intent) -> dict[str, str]:
        """Informational: a dataplane that cannot tell does not fail the refresh."""
        try:
            found = await self._dataplane.counters((intent,))
        except NsmError as error:
            _LOG.warning("counters.unknown", connection=intent.id, reason=str(error))
            return {}
        pair = found.get(intent.id)
        return {} if pair is None else dict(metrics.counters(pair))

    # -- Close ---------------------------------------------------------------------------------------

    async def close(self, closing: Closing) -> None:
        """Not wanted any more: the workloads are bare, then the next hop is told; all else goes after the answer."""
        connection = closing.connection
        row = self._rows.pop(connection.id, None)
        self._reconciler.remove(connection.id)
        # before the endpoint can give the addresses to another connection
        await self._reconciler.withdraw(connection.id, closing.deadline)
        if row is None:
            self._next_hop.forget(connection.id)
            return
        mechanism = Mechanism(row.next_cls, row.next_type, dict(row.next_parameters))
        behind = replace(connection, mechanism=mechanism)
        with self._late.made_up_for(connection.network_service_endpoint_name, behind):
            await self._close_next(row, behind, closing.deadline)

    async def _close_next(self, row: Row, connection: Connection, deadline: float) -> None:
        """Where it went, else where its endpoint is now. NsmError UNAVAILABLE where neither is there."""
        try:
            if not row.url:
                raise NsmError(Code.UNAVAILABLE, "the next hop's address did not outlive the agent")
            await self._next_hop.close(row.url, connection, deadline=deadline)
        except NsmError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            endpoint = await self._endpoint_or_none(connection.network_service_endpoint_name)
            if endpoint is None or endpoint.url == row.url:
                raise
            await self._next_hop.close(endpoint.url, connection, deadline=deadline)

    async def _endpoint_or_none(self, name: str) -> NetworkServiceEndpoint | None:
        try:
            return await self._discovery.by_name(name)
        except NsmError as error:
            _LOG.info("close.endpoint_unknown", endpoint=name, reason=str(error))
            return None


def _claims_of_row(row: Row) -> set[tuple[object, ...]]:
    ports = {("port", choice.port) for choice in (row.client, row.endpoint) if choice.port}
    return {*claims_of(row.intent), *ports}


def _lasting(url: str) -> str:
    """``url`` unless it was good in the process that wrote it only."""
    return "" if url.startswith("unix:///proc/") else url


def _agreed_before(known: Row | None, types: Sequence[str]) -> Mechanism | None:
    """What was negotiated with the next hop last time (reference §3.12)."""
    if known is None or known.next_type not in types:
        return None
    return Mechanism(known.next_cls, known.next_type, dict(known.next_parameters))


def _smallest(*values: int) -> int:
    """The smallest of those that are set."""
    return min(value for value in values if value)


def _expiry(connection: Connection, now: float) -> float:
    previous = connection.route.previous
    return previous.expires / 1e9 if previous is not None and previous.expires is not None else now


def _all_failed(errors: Sequence[NsmError]) -> NsmError:
    said = "; ".join(dict.fromkeys(str(error) for error in errors))
    code = errors[-1].code if errors else Code.NOT_FOUND
    return NsmError(code, f"every endpoint failed: {said}", field="connection.network_service")


def _random_name() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(15))
