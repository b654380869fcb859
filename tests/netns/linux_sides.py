"""Two nodes with a workload each, and a tunnel between them: what tests of remote connections share."""

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.linux import uapi
from forwarder_vpp.dataplane.linux.dataplane import IN_KERNEL, WIREGUARD_GO, LinuxDataplane
from tests.netns.linux_node import Executor, census, client_end, endpoint_end, inside, ping

any_wireguard = pytest.mark.parametrize("engine", [IN_KERNEL, WIREGUARD_GO])
wireguard_in_kernel = pytest.mark.parametrize("engine", [IN_KERNEL])


@dataclass
class Side:
    node: Path
    workload: Path
    state: Path
    plane: LinuxDataplane
    executor: Executor
    netns: NetnsId


Sides = tuple[Side, Side]


def end_all(state: Path) -> None:
    """What a test left running."""
    for path in tuple(state.rglob("*.sock")):
        uapi.end(path)


def vxlan(sides: Sides, *, vni: int = 7, port: int = 4789, v6: bool = False) -> tuple[Intent, Intent]:
    one, two = ("fd00::1", "fd00::2") if v6 else ("192.0.2.1", "192.0.2.2")
    out, back = VxlanEnd(one, two, vni, port, port), VxlanEnd(two, one, vni, port, port)
    return (
        Intent("id1", "owner1", "ETHERNET", 1426, client_end(sides[0].netns), out),
        Intent("id2", "owner2", "ETHERNET", 1426, back, endpoint_end(sides[1].netns)),
    )


def key() -> tuple[str, str]:
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    return base64.b64encode(private.private_bytes_raw()).decode(), base64.b64encode(public).decode()


def wireguard(sides: Sides, *, port: int = 52001, number: int = 1) -> tuple[Intent, Intent]:
    (private1, public1), (private2, public2) = key(), key()
    out = WireguardEnd("192.0.2.1", "192.0.2.2", port, port + 1000, private1, public2)
    back = WireguardEnd("192.0.2.2", "192.0.2.1", port + 1000, port, private2, public1)
    return (
        Intent(
            f"i{number}", f"o{number}", "IP", 1440, client_end(sides[0].netns, f"nsm-{number}", number), out
        ),
        Intent(
            f"j{number}",
            f"p{number}",
            "IP",
            1440,
            back,
            endpoint_end(sides[1].netns, f"nse-{number}", number),
        ),
    )


async def connect(sides: Sides, intents: tuple[Intent, Intent]) -> None:
    """The endpoint's node first, as a Request does it on its way back."""
    for side, intent in ((sides[1], intents[1]), (sides[0], intents[0])):
        await side.executor.create(side.plane.items(intent))
        await side.plane.settle(intent, 10)


async def disconnect(sides: Sequence[Side], intents: Sequence[Intent]) -> None:
    for side, intent in zip(sides, intents, strict=True):
        await side.executor.delete(side.plane.items(intent))


def everywhere(sides: Sides) -> list[object]:
    return census(*(place for side in sides for place in (side.node, side.workload)))


def without_neighbours(found: list[object]) -> list[object]:
    """The underlay learns its neighbours by itself."""
    return [each for each in found if not (isinstance(each, tuple) and each[1] == "neigh")]


def assert_reachable(sides: Sides, number: int = 1) -> None:
    assert ping(sides[0].workload, f"172.16.{number}.2", size=1398) == 5
    assert ping(sides[0].workload, f"fd16:{number}::2") == 5
    assert ping(sides[1].workload, f"172.16.{number}.1") == 5
    assert ping(sides[1].workload, f"fd16:{number}::1") == 5


def without_detour(intent: Intent) -> Intent:
    """Without the route that only one interface can have."""
    assert isinstance(intent.client, KernelEnd)
    return replace(intent, client=replace(intent.client, routes=intent.client.routes[:2]))


def open_process(state: Path) -> int:
    (path,) = state.rglob("*.sock")
    with uapi.connect(path) as client:
        return os.pidfd_open(uapi.owner_of(client))


def sent_by(node: Path) -> int:
    """Packets that have left by the node's uplink."""
    (link,) = json.loads(inside(node, "ip", "-j", "-s", "link", "show", "eth0"))
    return int(link["stats64"]["tx"]["packets"])
