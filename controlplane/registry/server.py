"""The gRPC front of a registry: path, tokens, policies and queues, the same for the registry and for a manager.

What is stored or passed on is the backend's business (reference §3.13: grpcmetadata, updatepath, authorize, begin).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import structlog

from controlplane.registry.queues import NameQueues
from nsm.model.endpoint import (
    EndpointQuery,
    EndpointResponse,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.identity import Token, TokenSource, TokenVerifier
from nsm.policy.rules import RegistryPolicies
from nsm.session.matching import is_interdomain
from nsm.session.registry_path import RegistryPath, arrive, leave, path_metadata, put_path_ids, read_path
from nsm.session.tokens import read_token_metadata
from nsm.transport.call import Call
from nsm.transport.server import Server
from nsm.wire import methods

MAX_NAME_BYTES: Final = 1024
"""Longest name of a service or endpoint we accept."""

_LOG: Final = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a Register or Unregister reached us: ``path`` has its index on us, tokens are the caller's and ours."""

    path: RegistryPath
    caller: Token | None = field(repr=False)
    own: Token = field(repr=False)
    call: Call

    def expiries(self) -> tuple[int | None, int | None]:
        """When our and the caller's token expire, Unix nanoseconds."""
        return self.own.expires, self.caller.expires if self.caller else None


class Backend(Protocol):
    """Keeps entries, or passes them on. Calls about one name never overlap."""

    async def register_service(
        self, service: NetworkService, arrival: Arrival
    ) -> tuple[NetworkService, RegistryPath]:
        """The service as registered, and the path with the index on us."""

    async def unregister_service(self, service: NetworkService, arrival: Arrival) -> RegistryPath:
        """Remove it; an unknown name is no error."""

    def find_services(self, query: NetworkServiceQuery, call: Call) -> AsyncIterator[NetworkServiceResponse]:
        """The matches; a watch stays open."""

    async def register_endpoint(
        self, endpoint: NetworkServiceEndpoint, arrival: Arrival
    ) -> tuple[NetworkServiceEndpoint, RegistryPath]:
        """The endpoint as registered, and the path with the index on us."""

    async def unregister_endpoint(self, endpoint: NetworkServiceEndpoint, arrival: Arrival) -> RegistryPath:
        """Remove it; an unknown name is no error."""

    def find_endpoints(self, query: EndpointQuery, call: Call) -> AsyncIterator[EndpointResponse]:
        """The matches; a watch stays open."""


Entry = TypeVar("Entry", NetworkService, NetworkServiceEndpoint)
Result = TypeVar("Result")


class RegistryServer:
    """Serves NetworkServiceRegistry and NetworkServiceEndpointRegistry over a backend."""

    def __init__(
        self,
        backend: Backend,
        *,
        tokens: TokenSource,
        verifier: TokenVerifier,
        services: RegistryPolicies,
        endpoints: RegistryPolicies,
    ) -> None:
        """``services`` and ``endpoints`` bind names of their kind to owners, so they are two."""
        self._backend = backend
        self._tokens = tokens
        self._verifier = verifier
        self._service_policies = services
        self._endpoint_policies = endpoints
        self._service_queues = NameQueues()
        self._endpoint_queues = NameQueues()

    def serve(self, server: Server) -> None:
        """Add our methods to ``server``."""
        server.unary(methods.NS_REGISTER, self._register_service)
        server.unary(methods.NS_UNREGISTER, self._unregister_service)
        server.stream(methods.NS_FIND, self._find_services)
        server.unary(methods.NSE_REGISTER, self._register_endpoint)
        server.unary(methods.NSE_UNREGISTER, self._unregister_endpoint)
        server.stream(methods.NSE_FIND, self._find_endpoints)

    async def _register_service(self, service: NetworkService, call: Call) -> NetworkService:
        _refuse_interdomain("network_service.name", service.name)

        async def work(entry: NetworkService, arrival: Arrival) -> tuple[NetworkService, RegistryPath]:
            answer, path = await self._backend.register_service(entry, arrival)
            self._service_policies.registered(entry.name, entry.path_ids)
            return answer, path

        return await self._write(service, call, self._service_policies, self._service_queues, work)

    async def _unregister_service(self, service: NetworkService, call: Call) -> None:
        async def work(entry: NetworkService, arrival: Arrival) -> tuple[None, RegistryPath]:
            path = await self._backend.unregister_service(entry, arrival)
            self._service_policies.unregistered(entry.name)
            return None, path

        await self._write(service, call, self._service_policies, self._service_queues, work)

    async def _register_endpoint(
        self, endpoint: NetworkServiceEndpoint, call: Call
    ) -> NetworkServiceEndpoint:
        _refuse_interdomain("network_service_endpoint.name", endpoint.name)
        for name in endpoint.network_service_names:
            _refuse_interdomain("network_service_endpoint.network_service_names", name)

        async def work(
            entry: NetworkServiceEndpoint, arrival: Arrival
        ) -> tuple[NetworkServiceEndpoint, RegistryPath]:
            answer, path = await self._backend.register_endpoint(entry, arrival)
            self._endpoint_policies.registered(entry.name, entry.path_ids)
            return answer, path

        return await self._write(endpoint, call, self._endpoint_policies, self._endpoint_queues, work)

    async def _unregister_endpoint(self, endpoint: NetworkServiceEndpoint, call: Call) -> None:
        async def work(entry: NetworkServiceEndpoint, arrival: Arrival) -> tuple[None, RegistryPath]:
            path = await self._backend.unregister_endpoint(entry, arrival)
            self._endpoint_policies.unregistered(entry.name)
            return None, path

        await self._write(endpoint, call, self._endpoint_policies, self._endpoint_queues, work)

    async def _write(
        self,
        entry: Entry,
        call: Call,
        policies: RegistryPolicies,
        queues: NameQueues,
        work: Callable[[Entry, Arrival], Awaitable[tuple[Result, RegistryPath]]],
    ) -> Result:
        """What every Register and Unregister does around its work."""
        _check_name(entry.name)
        sent = read_path(call.metadata)
        arrival = self._arrive(sent or RegistryPath(), call)
        entry = self._with_path_ids(entry, arrival)
        # Without path metadata the policies get an empty path and refuse it, as upstream's do (trap 27).
        tokens = arrival.path.tokens[: arrival.path.index + 1] if sent is not None else ()
        index = arrival.path.index if sent is not None else 0
        async with queues.turn(entry.name):
            try:
                policies.server(entry.name, tokens, index, entry.path_ids, call.peer.leaf)
                policies.caller(tokens, index, call.peer.spiffe_id)
            except NsmError as error:
                _audit(entry, call, error)
                raise
            result, path = await work(entry, arrival)
        if sent is not None:
            call.send_metadata(path_metadata(leave(path)))
        return result

    def _arrive(self, path: RegistryPath, call: Call) -> Arrival:
        caller = read_token_metadata(call.metadata)
        own = self._tokens.token(call.peer.spiffe_id, call.peer.not_after, call.peer.shown)
        return Arrival(arrive(path, caller.text if caller else "", own.text), caller, own, call)

    def _with_path_ids(self, entry: Entry, arrival: Arrival) -> Entry:
        """``path_ids`` as upstream writes them; the first, by which names are bound, comes from the first token."""
        path = arrival.path
        caller = arrival.caller.text if arrival.caller else ""
        ids: tuple[str, ...] = put_path_ids(
            entry.path_ids, path.index, self._subject(caller), self._tokens.spiffe_id
        )
        return replace(entry, path_ids=(self._subject(path.tokens[0]), *ids[1:]))

    def _subject(self, token: str) -> str:
        claims = self._verifier.claims(token) if token else None
        return claims.sub if claims else ""

    async def _find_services(
        self, query: NetworkServiceQuery, call: Call
    ) -> AsyncIterator[NetworkServiceResponse]:
        _refuse_interdomain("network_service.name", query.network_service.name)
        async for response in self._backend.find_services(query, call):
            yield response

    async def _find_endpoints(self, query: EndpointQuery, call: Call) -> AsyncIterator[EndpointResponse]:
        wanted = query.network_service_endpoint
        for name in (wanted.name, *wanted.network_service_names):
            _refuse_interdomain("network_service_endpoint", name)
        async for response in self._backend.find_endpoints(query, call):
            yield response


def _audit(entry: NetworkService | NetworkServiceEndpoint, call: Call, refusal: NsmError) -> None:
    _LOG.warning(
        "audit",
        decision="denied",
        method="registry",
        rule=refusal.field,
        reason=refusal.message,
        peer=call.peer.spiffe_id,
        address=call.peer.address,
        kind=type(entry).__name__,
        name=entry.name,
    )


def _check_name(name: str) -> None:
    if not name:
        raise invalid("name", "a name that is not empty", name)
    if len(name.encode()) > MAX_NAME_BYTES:
        raise invalid("name", f"at most {MAX_NAME_BYTES} bytes", len(name.encode()))


def _refuse_interdomain(where: str, name: str) -> None:
    if is_interdomain(name):
        raise NsmError(
            Code.UNIMPLEMENTED,
            f"expected a name of this domain, got {name!r}: other domains need a gateway, which is not there yet",
            field=where,
        )


def registry_policies(
    verifier: TokenVerifier, masks: Sequence[str]
) -> tuple[RegistryPolicies, RegistryPolicies]:
    """The rules for services and for endpoints."""
    return RegistryPolicies(verifier, masks), RegistryPolicies(verifier, masks)
