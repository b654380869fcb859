"""Upstream's matching, case by case (reference §3.9, §3.10, §3.13)."""

import pytest

from nsm.model.endpoint import Destination, Match, NetworkService, NetworkServiceEndpoint
from nsm.session.matching import (
    endpoint_matches,
    is_expired,
    is_subset,
    render,
    select_endpoints,
    select_forwarders,
    service_matches,
)

SECOND = 1_000_000_000


def endpoint(name: str, **labels: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name, network_service_names=("s",), network_service_labels={"s": labels} if labels else {}
    )


def names(endpoints: tuple[NetworkServiceEndpoint, ...]) -> list[str]:
    return [found.name for found in endpoints]


A, B, BARE = endpoint("a", app="a"), endpoint("b", app="b"), endpoint("bare")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{.nodeName}}", "n1"),
        ("{{ .nodeName }}", "n1"),
        ("on-{{ .nodeName }}-{{.x}}", "on-n1-1"),
        ("{{.missing}}", "<no value>"),
        ('{{index . "a-b"}}', "dashed"),
        ('{{index . "missing"}}', ""),
        ("a {{- .x -}} b", "a1b"),
        ("a {{.x}} b", "a 1 b"),
        ("{{/* why */}}v", "v"),
        ('{{"text"}}', "text"),
        ("{{.a-b}}", "{{.a-b}}"),  # Go: parse error
        ("{{.x", "{{.x"),
        ("{{.x.y}}", "{{.x.y}}"),  # Go: no field of a string
        ("{{}}", "{{}}"),
        ("}}", "}}"),
        ("{{if .x}}y{{end}}", "{{if .x}}y{{end}}"),
    ],
)
def test_selector_values_are_go_templates(template: str, text: str) -> None:
    assert render(template, {"nodeName": "n1", "x": "1", "a-b": "dashed"}) == text


@pytest.mark.parametrize(
    ("labels", "selector", "expected"),
    [
        ({}, {}, True),
        ({"a": "1"}, {}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, True),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1"}, {"b": ""}, True),  # an absent label equals an empty value
        ({}, {"b": ""}, False),  # but sizes are compared first
        ({"node": "n1"}, {"node": "{{.nodeName}}"}, True),
        ({"node": "n2"}, {"node": "{{.nodeName}}"}, False),
        ({"node": "{{.nodeName}}"}, {"node": "{{.nodeName}}"}, True),
    ],
)
def test_subset(labels: dict[str, str], selector: dict[str, str], expected: bool) -> None:
    assert is_subset(labels, selector, {"nodeName": "n1"}) is expected


def test_without_matches_every_endpoint_is_selected() -> None:
    assert names(select_endpoints(NetworkService("s"), (A, B, BARE), {})) == ["a", "b", "bare"]


def test_first_match_of_the_client_decides_and_routes_keep_their_order() -> None:
    to_b_then_a = Match({"app": "x"}, (Destination({"app": "b"}), Destination({"app": "a"})))
    service = NetworkService("s", matches=(to_b_then_a, Match({}, (Destination({"app": "a"}),))))
    assert names(select_endpoints(service, (A, B), {"app": "x"})) == ["b", "a"]
    assert names(select_endpoints(service, (A, B), {"app": "y"})) == ["a"]


def test_an_endpoint_of_two_routes_is_selected_twice() -> None:
    service = NetworkService("s", matches=(Match({}, (Destination({}), Destination({"app": "a"}))),))
    assert names(select_endpoints(service, (A,), {})) == ["a", "a"]


@pytest.mark.parametrize(("fall_through", "expected"), [(True, ["b"]), (False, [])])
def test_only_fallthrough_leads_to_the_next_match(fall_through: bool, expected: list[str]) -> None:
    first = Match({}, (Destination({"app": "nobody"}),), fall_through=fall_through)
    service = NetworkService("s", matches=(first, Match({}, (Destination({"app": "b"}),))))
    assert names(select_endpoints(service, (A, B), {})) == expected


def test_fallthrough_of_the_last_match_selects_nothing() -> None:
    service = NetworkService("s", matches=(Match({}, (Destination({"app": "no"}),), fall_through=True),))
    assert select_endpoints(service, (A,), {}) == ()


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match({}, metadata={}), ["a", "b"]),
        (Match({}), []),
        (Match({}, (Destination({"app": "no"}),), metadata={}), []),
    ],
)
def test_metadata_without_routes_selects_all(match: Match, expected: list[str]) -> None:
    assert names(select_endpoints(NetworkService("s", matches=(match,)), (A, B), {})) == expected


def test_no_match_for_the_client_selects_nothing() -> None:
    service = NetworkService("s", matches=(Match({"app": "x"}, (Destination({}),)),))
    assert select_endpoints(service, (A,), {}) == ()


def test_endpoint_on_the_clients_node_is_selected_by_template() -> None:
    service = NetworkService("s", matches=(Match({}, (Destination({"nodeName": "{{.nodeName}}"}),)),))
    here, there = endpoint("here", nodeName="n1"), endpoint("there", nodeName="n2")
    assert names(select_endpoints(service, (there, here), {"nodeName": "n1"})) == ["here"]


def forwarder(name: str, labels: dict[str, str] | None) -> NetworkServiceEndpoint:
    entry = {} if labels is None else {"forwarder": labels}
    return NetworkServiceEndpoint(
        name=name, network_service_names=("forwarder",), network_service_labels=entry
    )


P2P = forwarder("p2p", {"p2p": "true"})
SRIOV = forwarder("sriov", {"sriov": "true"})
UNLABELLED = forwarder("unlabelled", None)


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ((), ["p2p", "sriov", "unlabelled"]),
        ((Match({}),), ["p2p"]),
        ((Match({}, metadata={}),), ["p2p"]),
        ((Match({}, metadata={"sriov": "true"}),), ["sriov"]),
        ((Match({"app": "x"}),), []),
        ((Match({}, metadata={"no": "1"}, fall_through=True), Match({})), ["p2p"]),
        ((Match({}, metadata={"no": "1"}), Match({})), []),
    ],
)
def test_forwarders_are_selected_by_metadata_labels(matches: tuple[Match, ...], expected: list[str]) -> None:
    service = NetworkService("s", matches=matches)
    assert names(select_forwarders(service, (P2P, SRIOV, UNLABELLED), {}, "forwarder")) == expected


STORED = NetworkServiceEndpoint(
    name="nse-1",
    network_service_names=("a", "b"),
    network_service_labels={"a": {"k": "v", "l": "w"}},
    url="tcp://10.0.0.1:5001",
    expiration_time=7 * SECOND + 5,
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (NetworkServiceEndpoint(), True),
        (NetworkServiceEndpoint(name="nse-1"), True),
        (NetworkServiceEndpoint(name="nse"), False),
        (NetworkServiceEndpoint(url="5001"), True),
        (NetworkServiceEndpoint(url="50011"), False),
        (NetworkServiceEndpoint(network_service_names=("b",)), True),
        (NetworkServiceEndpoint(network_service_names=("b", "c")), False),
        (NetworkServiceEndpoint(network_service_labels={"a": {"k": "v"}}), True),
        (NetworkServiceEndpoint(network_service_labels={"a": {}}), True),
        (NetworkServiceEndpoint(network_service_labels={"b": {}}), False),
        (NetworkServiceEndpoint(network_service_labels={"a": {"k": "{{.k}}"}}), False),
        (NetworkServiceEndpoint(expiration_time=7 * SECOND), True),
        (NetworkServiceEndpoint(expiration_time=8 * SECOND), False),
    ],
)
def test_endpoint_queries(query: NetworkServiceEndpoint, expected: bool) -> None:
    assert endpoint_matches(query, STORED) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (NetworkService(), True),
        (NetworkService("s"), True),
        (NetworkService("ss"), False),
        (NetworkService("s", "IP"), True),
        (NetworkService("s", "ETHERNET"), False),
        (NetworkService("s", matches=(Match({}),)), True),
        (NetworkService("s", matches=(Match({"a": "b"}),)), False),
    ],
)
def test_service_queries(query: NetworkService, expected: bool) -> None:
    assert service_matches(query, NetworkService("s", "IP", (Match({}),))) is expected


def test_only_an_expiration_expires() -> None:
    assert is_expired(STORED, 8)
    assert not is_expired(STORED, 7)
    assert not is_expired(A, 1e12)
