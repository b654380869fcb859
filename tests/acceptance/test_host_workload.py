"""Workloads that run on the node itself, in its forwarder's namespace: a plain host is its own client or server."""

import subprocess
from typing import Any

import pytest

from nsmctl.lab import namespaces
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.probes import Probes
from tests.acceptance.test_reach import PLACES
from tests.scenes import Scene, carried, links, settled


@pytest.mark.parametrize("place", ["local", "wireguard", "vxlan"])
def test_packets_of_the_node_itself_arrive(lab: Scene, place: str) -> None:
    """The client is on its node; across nodes the endpoint is on its own too."""
    remote, payload = PLACES[place]

    def found() -> list[dict[str, int]]:
        return [links(node.netns) for node in (lab.near, lab.far)]

    before = found()
    if remote:
        lab.host_endpoint("server", node=lab.far, NSM_PAYLOAD=payload)
    else:
        lab.endpoint("server", node=lab.near, payload=payload)
    connection = lab.host_client("caller", "server-service", node=lab.near)
    with probed(lab, connection, is_far=remote) as running:
        carried(running.finish())
    lab.remove("caller")
    lab.remove("server")
    assert settled(found, lambda now: now == before) == before, (
        "links are removed after the Close is answered"
    )


def test_an_agent_that_is_killed_finds_what_the_node_itself_has(lab: Scene) -> None:
    lab.host_endpoint("server", node=lab.far)
    connection = lab.host_client("caller", "server-service", node=lab.near)
    before = links(lab.near.netns)
    name = f"{lab.near.name}/forwarder"
    with probed(lab, connection, is_far=True, seconds=None) as running:
        lab.kill(name)
        lab.start(name)
        adopted = lab.events(name, "connections.adopted")[-1]
        carried(running.finish())
    assert (adopted["alive"], adopted["ended"]) == (1, 0)
    assert links(lab.near.netns)["nsm-1"] == before["nsm-1"]


def test_a_name_that_the_node_itself_has_is_refused(lab: Scene) -> None:
    """A TUN device that nobody holds open is the hardest: who asks for one of its name is given that one."""
    lab.endpoint("server")
    with namespaces.entered(lab.near.netns):
        subprocess.run(["ip", "tuntap", "add", "taken", "mode", "tun"], check=True)
    try:
        reason = lab.host_refusal("caller", "kernel://server-service/taken", node=lab.near)
        assert reason.startswith("ALREADY_EXISTS: mechanism.parameters.name: ")
        assert "expected a free interface name, but 'taken' exists" in reason
        assert "taken" in links(lab.near.netns)
    finally:
        with namespaces.entered(lab.near.netns):
            subprocess.run(["ip", "tuntap", "delete", "taken", "mode", "tun"], check=True)


def probed(lab: Scene, connection: dict[str, Any], *, is_far: bool, seconds: float | None = 1.0) -> Probes:
    """From the near node itself to the far one, or to the endpoint's own namespace."""
    there = lab.far.netns if is_far else lab.netns("server")
    return Probes(flows_of(connection), client=lab.near.netns, endpoint=there, rate=500, seconds=seconds)
