"""Scenarios 29 and 31: the Go registry and Go managers with our forwarders, workloads of ours and of theirs."""

import pytest

from tests.scenes import carried

from . import peers
from .casts import Mixed
from .course import RATE
from .test_go_workloads import PLACES

pytestmark = peers.needed


@pytest.mark.parametrize("place", ["local-ethernet", "wireguard"])
def test_our_client_reaches_our_endpoint(go_lab: Mixed, place: str) -> None:
    is_remote, payload, hops = PLACES[place]
    name = f"os-{place}"
    go_lab.endpoint(name, node=go_lab.far if is_remote else go_lab.near, payload=payload)
    (connected,) = go_lab.client("oc", f"{name}-service")
    assert len(connected["path"]) == hops
    carried(go_lab.probe(connected, "oc", name, rate=RATE))


@pytest.mark.parametrize("place", PLACES)
def test_only_the_forwarders_are_ours(go_lab: Mixed, place: str) -> None:
    is_remote, payload, hops = PLACES[place]
    name = f"gs-{place}"
    go_lab.go_endpoint(name, node=go_lab.far if is_remote else go_lab.near, payload=payload)
    client = go_lab.go_client("gc", f"{name}-service")
    assert len(client.connection.route.segments) == hops
    carried(go_lab.probe(client.addresses, "gc", name, rate=RATE))
