"""Go's workloads with a VPP of their own want MEMIF, which our forwarder does not carry: they are told so."""

import pytest

from forwarder_vpp.mechanisms.refused import REASONS
from nsm.model.mechanism import MEMIF
from tests.suites import vpp_binary

from . import isolated, peers
from .casts import Mixed
from .conftest import GO_ON_LINUX, ON_LINUX

pytestmark = [
    *peers.needs(*peers.CONTROL_PLANE, *isolated.ALL),
    pytest.mark.skipif(vpp_binary() is None, reason="NO VPP: the workloads start one"),
]


def is_told(scene: Mixed, name: str) -> None:
    """The client that wants MEMIF logs the reason; it would ask for ever, and takes 10 s to end when told to."""
    settings = {"NSM_NETWORK_SERVICES": "memif://mm-service/nsm-1"}
    process, offset = scene.launched("client", name, scene.near, isolated.vpp_client, settings)
    peers.wait_lines(process, "try attempt has failed", f"{MEMIF}: {REASONS[MEMIF]}", since=offset)
    scene.kill(name)


@ON_LINUX
def test_a_client_is_told_that_shared_memory_is_not_carried(lab: Mixed) -> None:
    lab.endpoint("mm", node=lab.near)
    is_told(lab, "mc")


@GO_ON_LINUX
def test_gos_manager_passes_the_reason_on(go_lab: Mixed) -> None:
    go_lab.endpoint("mm", node=go_lab.near)
    is_told(go_lab, "mc")


@ON_LINUX
def test_a_client_of_an_endpoint_that_serves_shared_memory_alone_is_told(lab: Mixed) -> None:
    settings = {"NSM_SERVICE_NAMES": "me-service", "NSM_PAYLOAD": "IP", "NSM_CIDR_PREFIX": "172.16.9.0/24"}
    process, offset = lab.launched("endpoint", "me", lab.near, isolated.vpp_endpoint, settings)
    peers.wait_lines(process, "startup completed", since=offset)
    with lab.trying("mc", "kernel://me-service/nsm-1") as client:
        failed = lab.wait(client, "request.failed")
    assert "cannot support any of the requested mechanism" in failed["reason"]
