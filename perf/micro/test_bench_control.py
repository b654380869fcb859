"""Codec, path, tokens, policies, matching, addresses: what every hop does for every call."""

import time
from dataclasses import replace

from pytest_benchmark.fixture import BenchmarkFixture

from controlplane.endpoint.ipam import PointToPointIpam
from nsm.identity.tokens import PathTokens, PathTokenVerifier
from nsm.model.connection import NetworkServiceRequest
from nsm.model.context import IpContext
from nsm.model.endpoint import Destination, Match, NetworkService, NetworkServiceEndpoint
from nsm.model.path import Path
from nsm.policy.rules import Policies
from nsm.service.values import prefix_groups
from nsm.session.matching import select_endpoints
from nsm.session.path import restore, step
from nsm.wire.methods import NETWORK_SERVICE_REQUEST as REQUEST
from perf.micro import samples


def test_encode_request(benchmark: BenchmarkFixture) -> None:
    request = NetworkServiceRequest(samples.connection())
    assert len(benchmark(REQUEST.encode_request, request)) > 1000


def test_decode_request(benchmark: BenchmarkFixture) -> None:
    data = REQUEST.encode_request(NetworkServiceRequest(samples.connection()))
    assert benchmark(REQUEST.decode_request, data).connection == samples.connection()


def test_step_and_restore(benchmark: BenchmarkFixture) -> None:
    arrived = samples.arriving()

    def there_and_back() -> object:
        ours, ret = step(arrived, samples.HOPS[4], lambda: "new")
        return restore(ours, ret)

    assert benchmark(there_and_back) == arrived


def test_sign_token(benchmark: BenchmarkFixture) -> None:
    identity = samples.identities()[0]

    def sign() -> object:
        return PathTokens(identity, max_lifetime=samples.LIFETIME).token("spiffe://example.org/other")

    benchmark(sign)


def test_token_within_its_refresh_window(benchmark: BenchmarkFixture) -> None:
    tokens = PathTokens(samples.identities()[0], max_lifetime=samples.LIFETIME)
    first = tokens.token("spiffe://example.org/other")
    assert benchmark(tokens.token, "spiffe://example.org/other") == first


def test_policies_of_a_server_on_new_tokens(benchmark: BenchmarkFixture) -> None:
    route, leaf = _authorised()

    def check() -> None:
        Policies(PathTokenVerifier()).server(route, leaf)

    benchmark(check)


def test_policies_of_a_server_on_known_tokens(benchmark: BenchmarkFixture) -> None:
    route, leaf = _authorised()
    policies = Policies(PathTokenVerifier())
    policies.server(route, leaf)
    benchmark(policies.server, route, leaf)


def test_select_one_of_a_hundred_endpoints(benchmark: BenchmarkFixture) -> None:
    endpoints = tuple(
        NetworkServiceEndpoint(
            name=f"e{number}",
            network_service_names=("s",),
            network_service_labels={"s": {"node": f"n{number}"}},
        )
        for number in range(100)
    )
    routes = (Destination(destination_selector={"node": "{{.nodeName}}"}),)
    service = NetworkService(name="s", matches=(Match(routes=routes),))
    found = benchmark(select_endpoints, service, endpoints, {"nodeName": "n77"})
    assert [each.name for each in found] == ["e77"]


def test_addresses_with_a_thousand_leases(benchmark: BenchmarkFixture) -> None:
    ipam = PointToPointIpam(prefix_groups("[172.16.0.0/16],[fd00:172:16::/112]"))
    for number in range(1000):
        ipam.request(f"held-{number}", IpContext())

    def cycle() -> None:
        ipam.request("one", IpContext())
        ipam.release("one")

    benchmark(cycle)


def _authorised() -> tuple[Path, bytes]:
    """The path as the server at index 1 authorises it, with the peer's certificate."""
    client, manager = samples.identities()[:2]
    theirs = PathTokens(client, max_lifetime=samples.LIFETIME, clock=time.time).token(manager.spiffe_id)
    ours = PathTokens(manager, max_lifetime=samples.LIFETIME, clock=time.time).token(client.spiffe_id)
    first, second = samples.connection().route.segments[:2]
    segments = (
        replace(first, token=theirs.text, expires=theirs.expires),
        replace(second, token=ours.text, expires=ours.expires),
    )
    return Path(1, segments), client.leaf
