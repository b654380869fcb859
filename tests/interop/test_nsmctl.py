"""``nsmctl`` against a mesh that is no lab of its own: all Go, and ours; by URL and Workload API alone."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nsmctl.lab import launch, namespaces
from nsmctl.lab.identities import OPERATOR
from nsmctl.lab.topology import Node

from . import peers
from .casts import ALL_GO, Mixed, played_by
from .conftest import ON_LINUX

pytestmark = [*peers.needed, pytest.mark.minutes]

NSMCTL = str(Path(sys.executable).with_name("nsmctl"))
GUEST = "guest"


def on(node: Node) -> list[str]:
    """A command in the namespace of a node, where registry and managers can be reached."""
    return [sys.executable, "-I", "-S", str(launch.__file__), str(node.netns)]


def whose(node: Node) -> list[str]:
    """As whom."""
    return ["--spiffe-socket", f"unix://{node.identities}/{OPERATOR}.sock"]


def ask(node: Node, *words: str) -> Any:
    """The JSON that ``nsmctl get`` answers."""
    asked = [*on(node), NSMCTL, "get", *words, *whose(node), "--json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def get(scene: Mixed) -> None:
    """Everything that can be listed, by the URL of a manager and by that of the registry."""
    near = scene.near
    urls = (["--manager", near.manager], ["--registry", scene.world.topology.registry])
    # Go's endpoints do not unregister when they end: those of other tests are there until they expire.
    others = {each["name"] for each in ask(near, "endpoints", *urls[0])}
    scene.cast_endpoint("ge", node=scene.far, payload="IP")
    scene.cast_client("gc", "ge-service", node=near)
    for where in urls:
        assert "ge-service" in [each["name"] for each in ask(near, "services", *where)]
        assert {each["name"] for each in ask(near, "endpoints", *where)} - others == {"ge"}
        forwarders = {each["name"] for each in ask(near, "forwarders", *where)}
        assert f"forwarder-{near.name}" in forwarders
        (connection,) = ask(near, "connections", *where)
        assert (connection["service"], connection["endpoint"]) == ("ge-service", "ge")
        assert [hop["name"] for hop in connection["path"]][::5] == ["gc", "ge"]


def connect_and_run(scene: Mixed) -> None:
    """A client that lives as long as the command, and a command inside one."""
    near = scene.near
    scene.cast_endpoint("ce", node=near, payload="IP")
    where = ["--manager", near.manager, *whose(near)]
    shown = subprocess.run(
        [NSMCTL, "run", "-s", "ce-service", *where, "--", "ip", "-o", "link", "show", "nsm-1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    assert "nsm-1" in shown.stdout
    command = [NSMCTL, "connect", "ce-service", "--name", GUEST, *where, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = []
        for line in running.stdout:
            lines.append(line)
            if line == "]\n":
                break
        (connection,) = json.loads("".join(lines))
        space = namespaces.path_of(f"nsmctl-{GUEST}")
        address = connection["dst_ip_addrs"][0].partition("/")[0]
        ping = [sys.executable, "-I", "-S", str(launch.__file__), str(space), "ping", "-c", "1", address]
        subprocess.run(ping, check=True, stdout=subprocess.DEVNULL, timeout=60)
        assert [each["id"] for each in ask(near, "connections", "--manager", near.manager)] == [f"{GUEST}-0"]
        running.send_signal(signal.SIGTERM)
        assert running.wait(60) == 128 + signal.SIGTERM
    assert not space.exists()
    assert ask(near, "connections", "--manager", near.manager) == []


@pytest.mark.parametrize("theatre", played_by(ALL_GO), indirect=True)
def test_what_a_mesh_of_go_components_knows_is_listed(stage: Mixed) -> None:
    get(stage)


@pytest.mark.parametrize("theatre", played_by(ALL_GO), indirect=True)
def test_a_client_joins_a_mesh_of_go_components(stage: Mixed) -> None:
    connect_and_run(stage)


@ON_LINUX
def test_what_our_mesh_knows_is_listed_by_url(lab: Mixed) -> None:
    get(lab)


@ON_LINUX
def test_a_client_joins_our_mesh_by_url(lab: Mixed) -> None:
    connect_and_run(lab)
