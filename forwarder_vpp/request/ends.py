"""The two ends of a connection: which mechanism each is, which values it gets, what it becomes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from forwarder_vpp.dataplane.contract.dataplane import Dataplane
from forwarder_vpp.dataplane.contract.intent import End, NetnsId
from forwarder_vpp.mechanisms import kernel
from forwarder_vpp.mechanisms.all import TUNNELS, tunnel
from forwarder_vpp.mechanisms.refused import REASONS, refusal
from forwarder_vpp.mechanisms.tunnel import Choice, Tunnel, Underlay, address, no_tunnel, number
from forwarder_vpp.mechanisms.vxlan import agreed_vni
from forwarder_vpp.request.claims import Claims
from forwarder_vpp.store.row import Row
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.mechanism import (
    INODE_URL,
    INTERFACE_NAME,
    KERNEL,
    LOCAL,
    MTU,
    REMOTE,
    SRC_IP,
    VXLAN,
    Mechanism,
)

NETNS_FIELD: Final = f"connection.mechanism.parameters.{INODE_URL}"
_FILE: Final = "file://"


@dataclass(frozen=True, slots=True)
class ClientEnd:
    """The end towards the client as agreed; ``netns`` is set for a kernel interface. ``mtu`` 0 = no limit."""

    mechanism: Mechanism
    choice: Choice
    netns: NetnsId | None = None
    mtu: int = 0


class Ends:
    """Chooses and builds ends. Values chosen are claimed for the connection; whoever fails gives them back."""

    def __init__(
        self,
        dataplane: Dataplane,
        claims: Claims,
        *,
        vxlan_port: int,
        priority: Sequence[str],
        new_keys: Callable[[], tuple[str, str]],
        random_name: Callable[[], str],
    ) -> None:
        self._dataplane = dataplane
        self._claims = claims
        self._vxlan_port = vxlan_port
        self._priority = tuple(priority)
        self._new_keys = new_keys
        self._random_name = random_name

    @property
    def _underlay(self) -> Underlay:
        return Underlay(self._dataplane.tunnel_ip, self._dataplane.tunnel_mtu, self._vxlan_port)

    # -- towards the client --------------------------------------------------------------------------

    def client(
        self, connection: Connection, preferences: Sequence[Mechanism], payload: str, known: Row | None
    ) -> ClientEnd:
        """The mechanism agreed on before, else the first preference we can do (trap 18), with our side filled in."""
        offered = self._offered(connection, preferences, payload)
        if offered.type == KERNEL:
            return self._kernel(connection, offered)
        found = tunnel(offered.type)
        if found is None:
            raise no_tunnel(offered)
        before = known.client if known is not None else Choice()
        choice = self._answering_choice(found, offered, connection.id, before)
        agreed = found.accept(offered, choice, self._underlay)
        return ClientEnd(agreed, choice, None, number(agreed, MTU, 0, 0, 0xFFFF_FFFF))

    def client_intent(self, end: ClientEnd, context: ConnectionContext) -> End:
        """What the dataplane makes of it."""
        if end.netns is not None:
            return kernel.client_end(end.netns, end.mechanism.get(INTERFACE_NAME), context)
        return _tunnel(end.mechanism).answering_end(end.mechanism, end.choice)

    def _offered(self, connection: Connection, preferences: Sequence[Mechanism], payload: str) -> Mechanism:
        agreed = connection.mechanism
        if agreed is not None and agreed.type:
            if (error := self._refusal(agreed, payload, "connection.mechanism")) is not None:
                raise error
            return agreed
        errors = []
        for position, mechanism in enumerate(preferences):
            error = self._refusal(mechanism, payload, f"mechanism_preferences[{position}]")
            if error is None:
                return mechanism
            errors.append(error)
        raise errors[0] if errors else invalid("mechanism_preferences", "at least one mechanism", "none")

    def _refusal(self, mechanism: Mechanism, payload: str, field: str) -> NsmError | None:
        """Why not, with the place in the Request."""
        is_known = mechanism.type == KERNEL or tunnel(mechanism.type) is not None
        if mechanism.type in REASONS or not is_known:
            return refusal(mechanism, field)
        error = self._dataplane.refusal(mechanism, payload)
        return (
            None
            if error is None
            else NsmError(error.code, error.message, field=f"{field}.{_last(error.field)}")
        )

    def _kernel(self, connection: Connection, offered: Mechanism) -> ClientEnd:
        name = offered.get(INTERFACE_NAME) or kernel.default_name(
            connection.network_service, self._random_name()
        )
        kernel.check_name(name)
        netns = self._netns(offered)
        return ClientEnd(offered.having(**{INTERFACE_NAME: name}), Choice(), netns)

    def _netns(self, mechanism: Mechanism) -> NetnsId:
        url = mechanism.get(INODE_URL)
        if not url.startswith(_FILE):
            text = f"the network namespace must come as a descriptor over a unix socket, got {url!r}"
            raise NsmError(Code.FAILED_PRECONDITION, text, field=NETNS_FIELD)
        try:
            return self._dataplane.namespaces.learn(url.removeprefix(_FILE))
        except NsmError as error:
            raise NsmError(error.code, error.message, field=NETNS_FIELD) from error

    def _answering_choice(self, found: Tunnel, offered: Mechanism, owner: str, before: Choice) -> Choice:
        if found.type == VXLAN:
            remote = address(offered, SRC_IP)
            vni = agreed_vni(offered) or before.vni
            if vni:
                self._claims.take(owner, [("vni", remote, vni)])
                return Choice(vni=vni)
            return Choice(vni=self._claims.new_vni(owner, remote, offered, self._underlay.ip))
        return self._completed(found, owner, before)

    # -- towards the endpoint ------------------------------------------------------------------------

    def offers(self, payload: str, *, is_local: bool) -> list[str]:
        """The mechanism types to offer to a next hop on this node, or on another one."""
        cls = LOCAL if is_local else REMOTE
        types = [kind for each, kind in self._dataplane.offers(payload) if each == cls]
        return sorted(types, key=self._rank)

    def no_offer(self, payload: str) -> NsmError:
        """What is said where there is nothing to offer to a next hop on another node."""
        text = f"this node can carry payload {payload} to no other node"
        for each in TUNNELS:
            reason = self._dataplane.refusal(Mechanism(REMOTE, each.type), payload)
            if each.payload == payload and reason is not None:
                text = f"{text}: {reason.message}"
        return NsmError(Code.FAILED_PRECONDITION, text, field="connection.payload")

    def _rank(self, kind: str) -> int:
        return self._priority.index(kind) if kind in self._priority else len(self._priority)

    def requesting_choice(self, types: Sequence[str], owner: str, before: Choice) -> Choice:
        """Everything the offered types may need, chosen before the next hop is asked."""
        choice = before
        for each in TUNNELS:
            if each.type in types:
                choice = self._completed(each, owner, choice)
        return choice

    def preferences(self, types: Sequence[str], choice: Choice) -> tuple[Mechanism, ...]:
        """What the next hop is offered."""
        return tuple(
            kernel.preference()
            if kind == KERNEL
            else _tunnel(Mechanism(REMOTE, kind)).offer(choice, self._underlay)
            for kind in types
        )

    def endpoint_intent(
        self, agreed: Mechanism | None, types: Sequence[str], choice: Choice, context: ConnectionContext
    ) -> tuple[End, int]:
        """What the dataplane makes of the next hop's answer, and the MTU that allows (0 = any)."""
        if agreed is None or agreed.type not in types:
            got = "none" if agreed is None else f"{agreed.cls} {agreed.type}"
            raise invalid(
                "connection.mechanism.type", f"one of {', '.join(types)} in the next hop's answer", got
            )
        if agreed.type == KERNEL:
            name = agreed.get(INTERFACE_NAME)
            kernel.check_name(name)
            return kernel.endpoint_end(self._netns(agreed), name, context), 0
        found = _tunnel(agreed)
        own = self._underlay.mtu - found.overhead(self._underlay.ip)
        theirs = number(agreed, MTU, 0, 0, 0xFFFF_FFFF)
        return found.requesting_end(agreed, choice), min(theirs or own, own)

    def _completed(self, found: Tunnel, owner: str, choice: Choice) -> Choice:
        """``choice`` with what ``found`` needs; what it has stays, so a refresh keeps key and port."""
        if found.needs_key and not choice.private_key:
            private, public = self._new_keys()
            choice = replace(choice, private_key=private, public_key=public)
        if found.needs_port:
            if choice.port:
                self._claims.take(owner, [("port", choice.port)])
            else:
                choice = replace(choice, port=self._claims.new_port(owner))
        return choice


def _tunnel(mechanism: Mechanism) -> Tunnel:
    found = tunnel(mechanism.type)
    if found is None:
        raise no_tunnel(mechanism)
    return found


def _last(field: str) -> str:
    return field.rpartition("mechanism.")[2] or "type"
