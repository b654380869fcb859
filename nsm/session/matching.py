"""Which services and endpoints a query or a client's labels select (reference §3.9, §3.10, §3.13; traps 30 to 38).

Everything follows upstream to the letter, oddities included: a selector larger than the labels never matches,
an absent label equals an empty value, and a selector value may be a Go template over the client's labels.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from nsm.model.endpoint import Match, NetworkService, NetworkServiceEndpoint

Labels = Mapping[str, str]

NO_VALUE: Final = "<no value>"
"""What Go's text/template prints for a label that is not there."""

FORWARDER_LABELS: Final = {"p2p": "true"}
"""What a forwarder must carry for a match that names no metadata labels (reference §3.10)."""

_SECOND_NS: Final = 1_000_000_000
_SPACE: Final = " \t\r\n"
_FIELD: Final = re.compile(r"\.([^\W\d]\w*)")
_INDEX: Final = re.compile(r'index[ \t\r\n]+\.[ \t\r\n]+"([^"\\]*)"')
_TEXT: Final = re.compile(r'"([^"\\\n]*)"')
_COMMENT: Final = re.compile(r"/\*.*?\*/", re.DOTALL)


def render(template: str, labels: Labels) -> str:
    """``template`` as Go's text/template would print it over ``labels``.

    Understood are ``{{.name}}``, ``{{index . "name"}}``, ``{{"text"}}``, comments and the trim markers
    ``{{-`` and ``-}}``. A template that Go could not parse or execute is its own result; so is one of the
    actions (``if``, pipelines) that no selector in the field uses.
    """
    if "{{" not in template:
        return template
    parts: list[str] = []
    rest, trim_next = template, False
    while rest:
        text, opened, rest = rest.partition("{{")
        text = text.lstrip(_SPACE) if trim_next else text
        if not opened:
            parts.append(text)
            break
        body, closed, rest = rest.partition("}}")
        if not closed:
            return template
        if len(body) > 1 and body[0] == "-" and body[1] in _SPACE:
            text, body = text.rstrip(_SPACE), body[1:]
        trim_next = len(body) > 1 and body[-1] == "-" and body[-2] in _SPACE
        value = _action((body[:-1] if trim_next else body).strip(_SPACE), labels)
        if value is None:
            return template
        parts += [text, value]
    return "".join(parts)


def _action(body: str, labels: Labels) -> str | None:
    """What one action prints; ``None`` = none we know."""
    if field := _FIELD.fullmatch(body):
        return labels.get(field.group(1), NO_VALUE)
    if indexed := _INDEX.fullmatch(body):
        return labels.get(indexed.group(1), "")
    if text := _TEXT.fullmatch(body):
        return text.group(1)
    return "" if _COMMENT.fullmatch(body) else None


def is_subset(labels: Labels, selector: Labels, values: Labels) -> bool:
    """Whether ``selector`` selects ``labels``: as is, or with its values rendered over ``values``."""
    if len(labels) < len(selector):
        return False
    for key, wanted in selector.items():
        actual = labels.get(key, "")
        if actual not in (wanted, render(wanted, values)):
            return False
    return True


def select_endpoints(
    service: NetworkService, endpoints: Iterable[NetworkServiceEndpoint], client_labels: Labels
) -> tuple[NetworkServiceEndpoint, ...]:
    """The endpoints of ``service`` for a client of these labels, in upstream's order; () = none.

    No matches: all. Otherwise the first match whose source selector selects the client decides; it passes on
    to the next one only if it found nothing and falls through. An endpoint that two routes select is there twice.
    """
    known = tuple(endpoints)
    if not service.matches:
        return known
    for match in service.matches:
        if not is_subset(client_labels, match.source_selector, client_labels):
            continue
        found = _by_routes(match, service.name, known, client_labels)
        if not found and match.fall_through:
            continue
        if not found and match.metadata is not None and not match.routes:
            return known
        return found
    return ()


def _by_routes(
    match: Match, service: str, endpoints: Sequence[NetworkServiceEndpoint], client_labels: Labels
) -> tuple[NetworkServiceEndpoint, ...]:
    return tuple(
        endpoint
        for route in match.routes
        for endpoint in endpoints
        if is_subset(endpoint.labels(service), route.destination_selector, client_labels)
    )


def select_forwarders(
    service: NetworkService,
    forwarders: Iterable[NetworkServiceEndpoint],
    client_labels: Labels,
    forwarder_service: str,
) -> tuple[NetworkServiceEndpoint, ...]:
    """The forwarders that may carry a connection to ``service`` (reference §3.10); () = none.

    The first match that selects the client asks for its metadata labels (``p2p: true`` when it names none);
    a forwarder without labels for ``forwarder_service`` is never chosen then.
    """
    known = tuple(forwarders)
    if not service.matches:
        return known
    for match in service.matches:
        if not is_subset(client_labels, match.source_selector, client_labels):
            continue
        wanted = match.metadata or FORWARDER_LABELS
        found = tuple(
            forwarder
            for forwarder in known
            if forwarder_service in forwarder.network_service_labels
            and is_subset(forwarder.labels(forwarder_service), wanted, client_labels)
        )
        if found or not match.fall_through:
            return found
    return ()


def service_matches(query: NetworkService, service: NetworkService) -> bool:
    """Whether a Find for ``query`` gives ``service``: equal name, payload and matches; an empty field asks nothing."""
    return (
        query.name in ("", service.name)
        and query.payload in ("", service.payload)
        and (not query.matches or query.matches == service.matches)
    )


def endpoint_matches(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    """Whether a Find for ``query`` gives ``endpoint``; an empty field asks nothing.

    Equal name, URL by substring, services and labels by subset, expiration by equal whole seconds (trap 30).
    """
    return (
        query.name in ("", endpoint.name)
        and query.url in endpoint.url
        and set(query.network_service_names) <= set(endpoint.network_service_names)
        and _labels_contained(query, endpoint)
        and _same_second(query.expiration_time, endpoint.expiration_time)
    )


def is_expired(endpoint: NetworkServiceEndpoint, now: float) -> bool:
    """Whether its expiration has passed; ``now`` in Unix seconds, without an expiration never."""
    return endpoint.expiration_time is not None and endpoint.expiration_time <= now * _SECOND_NS


def is_interdomain(name: str) -> bool:
    """Whether ``name`` has the form ``name@domain`` (reference §3.13)."""
    return "@" in name


def _labels_contained(query: NetworkServiceEndpoint, endpoint: NetworkServiceEndpoint) -> bool:
    for service, wanted in query.network_service_labels.items():
        labels = endpoint.network_service_labels.get(service)
        if labels is None or any(labels.get(key) != value for key, value in wanted.items()):
            return False
    return True


def _same_second(wanted: int | None, actual: int | None) -> bool:
    return wanted is None or (actual is not None and wanted // _SECOND_NS == actual // _SECOND_NS)
