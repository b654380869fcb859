"""The X.509 half of the SPIFFE Workload API over the embedded authority.

Each identity's SVID is made on first demand and again after half its life; everyone who streams it gets it
at once, and so does everyone when bundles or the authority change. What is not served (JWT-SVIDs) is
UNIMPLEMENTED.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NoReturn

import grpc
import grpc.aio
import structlog
from spiffe._proto import workload_pb2

from nsm.identity.authority import BACKDATE, Authority
from nsm.identity.errors import IdentityError
from nsm.model.identity import Svid

SERVICE: Final = "SpiffeWorkloadAPI"
LONGEST_WAIT: Final = 5.0
"""Seconds between two looks at the wall clock, which may jump while we sleep."""

Bundles = Mapping[str, tuple[bytes, ...]]
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Issued:
    """The SVID in use for one identity, and from when until the next one is due it is (Unix seconds)."""

    svid: Svid
    begin: float
    rotate_at: float
    authority: Authority
    ttl: float

    def is_of(self, state: "State") -> bool:
        """Whether it is what would be issued now: by the same authority, for the same time."""
        return self.authority is state.authority and self.ttl == state.svid_ttl

    def is_due(self, now: float) -> bool:
        """Whether another is needed: half its life is over, or the clock was set back to before it."""
        return not self.begin <= now < self.rotate_at


@dataclass(slots=True)
class State:
    """What is served now; replaced as a whole by ``WorkloadApi.publish``."""

    authority: Authority
    bundles: Bundles = field(repr=False)
    svid_ttl: float
    replaced: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class WorkloadApi:
    """Handlers of the two streaming calls; ``caller`` tells which identity a connection may have.

    ``caller`` takes gRPC's name of the peer and returns its SPIFFE ID, or the reason why there is none.
    """

    def __init__(
        self,
        authority: Authority,
        bundles: Bundles,
        svid_ttl: float,
        caller: Callable[[str], "Caller"],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = State(authority, bundles, svid_ttl)
        self._caller = caller
        self._clock = clock
        self._issued: dict[str, Issued] = {}

    @property
    def state(self) -> State:
        """What is served now."""
        return self._state

    def publish(self, authority: Authority, bundles: Bundles, svid_ttl: float) -> None:
        """Serve something else from now on, on open streams too; nothing happens if it is the same."""
        old = self._state
        if authority.chain == old.authority.chain:
            authority = old.authority
            if (bundles, svid_ttl) == (old.bundles, old.svid_ttl):
                return
        self._state = State(authority, bundles, svid_ttl)
        old.replaced.set()

    def forget(self, spiffe_id: str) -> None:
        """The identity is no longer registered."""
        self._issued.pop(spiffe_id, None)

    def handler(self) -> grpc.GenericRpcHandler:
        """For ``grpc.aio.Server.add_generic_rpc_handlers``."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "FetchX509SVID": grpc.unary_stream_rpc_method_handler(
                    self.fetch_svid,
                    request_deserializer=workload_pb2.X509SVIDRequest.FromString,
                    response_serializer=workload_pb2.X509SVIDResponse.SerializeToString,
                ),
                "FetchX509Bundles": grpc.unary_stream_rpc_method_handler(
                    self.fetch_bundles,
                    request_deserializer=workload_pb2.X509BundlesRequest.FromString,
                    response_serializer=workload_pb2.X509BundlesResponse.SerializeToString,
                ),
            },
        )

    async def fetch_svid(
        self, _request: workload_pb2.X509SVIDRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[workload_pb2.X509SVIDResponse]:
        """The SVID and all bundles, and again whenever either changes."""
        spiffe_id = await self._admit(context)
        while True:
            state = self._state
            try:
                issued = self._current(spiffe_id, state)
            except IdentityError as error:
                await _abort(context, grpc.StatusCode.UNAVAILABLE, str(error))
            yield svid_response(issued.svid, state)
            await self._until_changed(state, issued)

    async def fetch_bundles(
        self, _request: workload_pb2.X509BundlesRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[workload_pb2.X509BundlesResponse]:
        """The bundles of all trust domains, and again whenever they change."""
        await self._admit(context)
        while True:
            state = self._state
            named = {f"spiffe://{domain}": b"".join(ders) for domain, ders in state.bundles.items()}
            yield workload_pb2.X509BundlesResponse(bundles=named)
            await state.replaced.wait()

    async def _admit(self, context: grpc.aio.ServicerContext) -> str:
        """The caller's SPIFFE ID; ends the call with a reason if it has none."""
        if ("workload.spiffe.io", "true") not in (context.invocation_metadata() or ()):
            await _abort(
                context, grpc.StatusCode.INVALID_ARGUMENT, "expected the metadata workload.spiffe.io: true"
            )
        caller = self._caller(context.peer())
        if caller.refusal:
            await _abort(context, grpc.StatusCode.PERMISSION_DENIED, caller.refusal)
        return caller.spiffe_id

    def _current(self, spiffe_id: str, state: State) -> Issued:
        """The SVID in use; a new one when it is due, another authority signs or it would live for another time."""
        now = self._clock()
        known = self._issued.get(spiffe_id)
        if known is not None and known.is_of(state) and not known.is_due(now):
            return known
        svid = state.authority.issue(spiffe_id, state.svid_ttl, now)
        begin = now - BACKDATE.total_seconds()
        issued = Issued(svid, begin, now + (svid.not_after - now) / 2, state.authority, state.svid_ttl)
        self._issued[spiffe_id] = issued
        _log.info("svid.issued", spiffe_id=spiffe_id, not_after=svid.not_after)
        return issued

    async def _until_changed(self, state: State, issued: Issued) -> None:
        """Until ``state`` is replaced or the clock says that another SVID is due."""
        while not state.replaced.is_set() and not issued.is_due(now := self._clock()):
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LONGEST_WAIT, issued.rotate_at - now)):
                    await state.replaced.wait()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a connection: an identity, or the reason why none is given out."""

    spiffe_id: str
    refusal: str = ""


def svid_response(svid: Svid, state: State) -> workload_pb2.X509SVIDResponse:
    """The message: our own bundle beside the SVID, the others' under ``spiffe://<trust domain>``."""
    own = state.authority.trust_domain
    message = workload_pb2.X509SVID(
        spiffe_id=svid.spiffe_id,
        x509_svid=b"".join(svid.chain),
        x509_svid_key=svid.key,
        bundle=b"".join(state.bundles[own]),
    )
    federated = {
        f"spiffe://{domain}": b"".join(ders) for domain, ders in state.bundles.items() if domain != own
    }
    return workload_pb2.X509SVIDResponse(svids=[message], federated_bundles=federated)


async def _abort(context: grpc.aio.ServicerContext, code: grpc.StatusCode, reason: str) -> NoReturn:
    await context.abort(code, reason)
    raise AssertionError("abort returns never")
