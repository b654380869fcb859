"""Scenario 30: Go client and Go endpoint on our registry, managers and forwarders, packets by probes."""

import pytest

from tests.scenes import carried

from . import peers
from .casts import Mixed
from .course import RATE

pytestmark = peers.needed

PLACES = {
    "local-ip": (False, "IP", 4),
    "local-ethernet": (False, "ETHERNET", 4),
    "wireguard": (True, "IP", 6),
    "vxlan": (True, "ETHERNET", 6),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_go_client_reaches_a_go_endpoint(lab: Mixed, place: str) -> None:
    is_remote, payload, hops = PLACES[place]
    name = f"gs-{place}"
    lab.go_endpoint(name, node=lab.far if is_remote else lab.near, payload=payload)
    client = lab.go_client("gc", f"{name}-service")
    assert [segment.name for segment in client.connection.route.segments][:: hops - 1] == ["gc", name]
    assert len(client.connection.route.segments) == hops
    verdicts = lab.probe(client.addresses, "gc", name, rate=RATE)
    carried(verdicts)
    assert all(verdict.forward.sent == verdict.back.sent == RATE for verdict in verdicts)


@pytest.mark.parametrize("side", ["client", "endpoint"])
def test_ours_and_theirs_at_the_two_ends_of_one_path(lab: Mixed, side: str) -> None:
    if side == "client":
        lab.endpoint("os")
        client = lab.go_client("gc", "os-service")
        verdicts = lab.probe(client.addresses, "gc", "os", rate=RATE)
    else:
        lab.go_endpoint("gs")
        (connected,) = lab.client("oc", "gs-service")
        verdicts = lab.probe(connected, "oc", "gs", rate=RATE)
    carried(verdicts)
