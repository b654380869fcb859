"""Which rules apply where: NetworkService servers and clients, registries, monitors (reference §3.3)."""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from nsm.model.errors import NsmError, denied, invalid
from nsm.model.identity import TokenVerifier
from nsm.model.path import Path
from nsm.policy.builtin import CLIENT, RULES, SERVER, Facts, next_token_signed

MASK_PREFIX: Final = "etc/nsm/opa/"
"""Where upstream keeps the built-in policies; masks in the settings start with it."""

REGISTRY_SERVER_MASKS: Final = (
    f"{MASK_PREFIX}common/.*.rego",
    f"{MASK_PREFIX}registry/.*.rego",
    f"{MASK_PREFIX}server/.*.rego",
)
"""Default of NSM_REGISTRY_SERVER_POLICIES."""

REGISTRY_CLIENT_MASKS: Final = (
    f"{MASK_PREFIX}common/.*.rego",
    f"{MASK_PREFIX}registry/.*.rego",
    f"{MASK_PREFIX}client/.*.rego",
)
"""Default of NSM_REGISTRY_CLIENT_POLICIES."""


class Policies:
    """The policies of NetworkService, which no command of upstream lets anyone change."""

    def __init__(self, verifier: TokenVerifier, *, clock: Callable[[], float] = time.time) -> None:
        self._verifier = verifier
        self._clock = clock

    def server(self, path: Path, peer_leaf: bytes) -> None:
        """A server's check of segments 0..index, its own being ``index``, after its tokens were written.

        Raises:
            NsmError: PERMISSION_DENIED whose field is the rule that denies.
        """
        tokens = tuple(segment.token for segment in path.segments[: path.index + 1])
        _check(SERVER, Facts(self._verifier, tokens, path.index, peer_leaf, self._clock()))

    def caller(self, path: Path, spiffe_id: str) -> None:
        """The caller's token is about the caller, whose verified SPIFFE ID is ``spiffe_id``.

        Not upstream's: there, a token of any subject will do if the caller signed it, so nothing that goes by a
        subject, as ``owner`` does, means anything. No component of upstream names another subject than its own.

        Raises:
            NsmError: PERMISSION_DENIED, rule ``caller_is_subject``.
        """
        previous = path.previous
        _check_caller(self._verifier, previous.token if previous is not None else "", spiffe_id)

    def client(self, path: Path, peer_leaf: bytes) -> None:
        """A client's check of the whole path of an answer; errors as ``server``."""
        tokens = tuple(segment.token for segment in path.segments)
        _check(CLIENT, Facts(self._verifier, tokens, path.index, peer_leaf, self._clock()))

    def owner(self, known: Path, asked: Path) -> None:
        """A call about a connection that exists, on path ``known``, comes from the client that has it.

        Who that is, the first token says: signed by the caller on the first hop, vouched for by the hops between
        on later ones, each of which signs for itself only (``caller``). Nothing here can verify the signature of a
        first token that came through others: its certificate is not in it. Who may call a later hop directly, and
        makes up a first token that is addressed to itself, passes; keep sockets of later hops from workloads.
        Not upstream's: there, who has read an id in somebody's path may take the connection over.

        Raises:
            NsmError: PERMISSION_DENIED, rule ``connection_owner``.
        """
        owner, caller = self._first(known), self._first(asked)
        if owner and caller and owner != caller:
            raise denied("connection_owner", f"the connection belongs to {owner!r}, not to {caller!r}")

    def _first(self, path: Path) -> str:
        """The SPIFFE ID in the first token, "" where there is none."""
        claims = self._verifier.claims(path.segments[0].token) if path.segments else None
        return claims.sub if claims else ""


class RegistryPolicies:
    """The policies that NSM_REGISTRY_SERVER_POLICIES or NSM_REGISTRY_CLIENT_POLICIES select by masks."""

    def __init__(
        self, verifier: TokenVerifier, masks: Sequence[str], *, clock: Callable[[], float] = time.time
    ) -> None:
        """No mask, or only empty ones, switches the check off; INVALID_ARGUMENT for a mask of no built-in rule."""
        self._verifier = verifier
        self._clock = clock
        self._rules = rules_of(masks)
        self._owners: dict[str, str] = {}

    def server(
        self, name: str, tokens: Sequence[str], index: int, path_ids: Sequence[str], peer_leaf: bytes
    ) -> None:
        """A registry's check of Register and Unregister of ``name``.

        ``tokens`` are those of the path in metadata and ``index`` our own segment's, after both tokens were
        written. ``path_ids`` come from the caller's object and prove nothing: ownership goes by the first token.

        Raises:
            NsmError: PERMISSION_DENIED whose field is the rule that denies.
        """
        del path_ids
        facts = Facts(self._verifier, tuple(tokens[: index + 1]), index, peer_leaf, self._clock())
        _check(self._rules, replace(facts, name=name, owners=self._owners))

    def caller(self, tokens: Sequence[str], index: int, spiffe_id: str) -> None:
        """As ``Policies.caller``, where the masks select the check of the caller's signature."""
        if "server/prev_token_signed" in self._rules:
            _check_caller(self._verifier, tokens[index - 1] if 0 < index <= len(tokens) else "", spiffe_id)

    def client(self, tokens: Sequence[str], index: int, peer_leaf: bytes) -> None:
        """A registry client's check of the whole path of an answer; errors as ``server``."""
        _check(self._rules, Facts(self._verifier, tuple(tokens), index, peer_leaf, self._clock()))

    def registered(self, name: str, path_ids: Sequence[str]) -> None:
        """``name`` was registered: from now on it belongs to the first of ``path_ids``."""
        if path_ids:
            self._owners[name] = path_ids[0]

    def unregistered(self, name: str) -> None:
        """``name`` is free again."""
        self._owners.pop(name, None)


class MonitorPolicy:
    """``monitor/service_connection``: only an owner of a selected connection may watch; off by default, as upstream."""

    RULE: Final = "monitor/service_connection"

    def __init__(self, *, is_enabled: bool = False) -> None:
        self._is_enabled = is_enabled
        self._owned: dict[str, set[str]] = {}

    def requested(self, spiffe_id: str, connection_ids: Iterable[str]) -> None:
        """A Request of the peer ``spiffe_id`` with these segment ids was allowed."""
        if self._is_enabled:
            self._owned.setdefault(spiffe_id, set()).update(connection_ids)

    def closed(self, spiffe_id: str, connection_ids: Iterable[str]) -> None:
        """The peer closed the connection."""
        owned = self._owned.get(spiffe_id, set())
        owned.difference_update(connection_ids)
        if not owned:
            self._owned.pop(spiffe_id, None)

    def check(self, spiffe_id: str, selected_ids: Iterable[str]) -> None:
        """Whether the peer may watch ``selected_ids``; NsmError PERMISSION_DENIED otherwise."""
        if self._is_enabled and not self._owned.get(spiffe_id, set()).intersection(selected_ids):
            raise denied(self.RULE, f"{spiffe_id} owns none of the selected connections")


def is_unshown_key(error: NsmError) -> bool:
    """Whether a client's policies deny because the next hop signs with a key that it has not shown on our connection.

    It rotated its SVID since; on a new connection key and certificate are the same again (trap 5).
    """
    return error.field == next_token_signed.__name__


def rules_of(masks: Sequence[str]) -> tuple[str, ...]:
    """The built-in rules that the masks (regular expressions of upstream's file names) select, in order.

    Raises:
        NsmError: INVALID_ARGUMENT for a mask that is no regular expression or selects no built-in rule.
    """
    chosen: dict[str, None] = {}
    for mask in filter(None, (mask.strip() for mask in masks)):
        try:
            matching = [
                name for name in RULES if re.fullmatch(mask.removeprefix("/"), f"{MASK_PREFIX}{name}.rego")
            ]
        except re.error as error:
            raise invalid(
                "registry policies", f"a regular expression of file names ({error})", mask
            ) from error
        if not matching:
            known = ", ".join(f"{MASK_PREFIX}{name}.rego" for name in RULES)
            raise invalid("registry policies", f"masks of the built-in policies {known}", mask)
        chosen |= dict.fromkeys(matching)
    return tuple(chosen)


def _check(names: Sequence[str], facts: Facts) -> None:
    for name in names:
        reason = RULES[name](facts)
        if reason is not None:
            raise denied(name.partition("/")[2], reason)


def _check_caller(verifier: TokenVerifier, token: str, spiffe_id: str) -> None:
    claims = verifier.claims(token)
    subject = claims.sub if claims is not None else ""
    if subject != spiffe_id:
        raise denied("caller_is_subject", f"the caller is {spiffe_id!r}, its token is about {subject!r}")
