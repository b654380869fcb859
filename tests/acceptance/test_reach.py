"""Scenarios 1, 3, 4: packets of workloads arrive, on one node and across nodes, and never in the clear."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nsmctl.lab import namespaces
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.world import port
from tests.scenes import Scene

PLACES = {
    "local": (False, "IP"),
    "local-ethernet": (False, "ETHERNET"),
    "wireguard": (True, "IP"),
    "vxlan": (True, "ETHERNET"),
}


def ip_json(space: Any, *words: str) -> Any:
    with namespaces.entered(space):
        return json.loads(subprocess.run(["ip", "-j", *words], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("place", PLACES)
def test_ten_thousand_probes_each_way_arrive(lab: Scene, place: str) -> None:
    remote, payload = PLACES[place]
    node = lab.far if remote else lab.near
    lab.endpoint("server", node=node, payload=payload)
    (connection,) = lab.client("caller", "server-service")
    verdicts = lab.probe(connection, "caller", "server", rate=2000, seconds=5)
    assert len(verdicts) == 2, "both address families"
    for verdict in verdicts:
        assert verdict.forward.sent == verdict.back.sent == 10_000
        assert verdict.lost == 0
    assert len(connection["path"]) == (6 if remote else 4)
    assert all(hop["spiffe_id"].startswith("spiffe://lab.nsm/") for hop in connection["path"])


@pytest.mark.parametrize("place", PLACES)
def test_the_interface_is_exactly_as_answered(lab: Scene, place: str) -> None:
    remote, payload = PLACES[place]
    lab.endpoint("server", node=lab.far if remote else lab.near, payload=payload)
    (connection,) = lab.client("caller", "server-service")
    space = lab.netns("caller")
    (link,) = ip_json(space, "link", "show", "nsm-1")
    is_padded = remote and payload == "IP" and lab.world.topology.dataplane == "linux"
    slack = 15 if is_padded else 0  # wireguard-go pads packets beyond the MTU of its device
    assert connection["mtu"] - slack <= link["mtu"] <= connection["mtu"]
    (shown,) = ip_json(space, "address", "show", "nsm-1")
    addresses = {f"{a['local']}/{a['prefixlen']}" for a in shown["addr_info"] if a["scope"] == "global"}
    assert addresses == set(connection["src_ip_addrs"])
    routes = {r["dst"] for f in ("-4", "-6") for r in ip_json(space, f, "route", "show", "dev", "nsm-1")}
    assert {a.partition("/")[0] for a in connection["dst_ip_addrs"]} <= routes


def test_ip_payload_never_crosses_the_underlay_in_the_clear(lab: Scene, tmp_path: Path) -> None:
    lab.endpoint("server")
    (connection,) = lab.client("caller", "server-service")
    file = tmp_path / "underlay.pcap"
    with namespaces.entered(namespaces.path_of(lab.world.topology.cable)):
        argv = [
            "tcpdump",
            "-i",
            port(lab.near).name,
            "-Z",
            "root",
            "--immediate-mode",
            "-U",
            "-w",
            str(file),
            "udp",
        ]
        capture = subprocess.Popen(argv, stderr=subprocess.PIPE)
    with capture:
        assert capture.stderr is not None
        try:
            assert b"listening" in capture.stderr.readline()
            with lab.probes(flows_of(connection), "caller", "server", rate=500, seconds=1) as running:
                verdicts = running.finish()
        finally:
            capture.terminate()
    seen = file.read_bytes()
    assert sum(v.lost for v in verdicts) == 0
    assert len(seen) > 200_000, "the tunnel's packets were captured"
    assert bytes(40) not in seen, "a probe's padding of zeros"
