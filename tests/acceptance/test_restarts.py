"""Scenarios 18 and 24: who is killed or away while packets flow is missed by none of them."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from nsmctl.lab.demonstration import cli_of, flows_of
from nsmctl.lab.probes import Verdict
from tests.fakes.write_counts import end_trace, netlink_writes, traced, vpp_trace
from tests.scenes import Scene, carried, links
from tests.suites import MEASURED

WORLD = (("local", False, "IP"), ("wireguard", True, "IP"), ("vxlan", True, "ETHERNET"))
RATES = {"local": 10_000, "wireguard": 1000, "vxlan": 1000}
"""Packets/s each way. The tunnels take less: where the kernel has no WireGuard a process encrypts for it."""
Tell = Callable[[str, object], None]


@contextmanager
def traffic(
    lab: Scene, tell: Tell, rates: Mapping[str, float] = RATES, **client_env: str
) -> Iterator[dict[str, int]]:
    """One connection of each kind, every one probed both ways while the block runs: 0 lost, no interface replaced.

    The clients have the liveness settings that are shipped; ``tell`` is told what was measured. ``rates`` in packets/s.
    """
    connections: dict[str, dict[str, Any]] = {}
    for number, (name, remote, payload) in enumerate(WORLD):
        pool = f"[172.16.{number}.0/24],[fd00:172:{number}::/112]"
        lab.endpoint(
            f"to-{name}", node=lab.far if remote else lab.near, payload=payload, NSM_CIDR_PREFIX=pool
        )
        (connections[name],) = lab.client(f"by-{name}", f"to-{name}-service", env=client_env)
    before = {name: links(lab.netns(f"by-{name}"))["nsm-1"] for name in connections}
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                lab.probes(flows_of(c)[:1], f"by-{name}", f"to-{name}", rate=rates[name])
            )
            for name, c in connections.items()
        }
        yield before
        verdicts = {name: probes.finish() for name, probes in running.items()}
        for name, (verdict,) in verdicts.items():
            tell(MEASURED, f"{name}: {told(verdict)}")
        for each in verdicts.values():
            carried(each, families=1)
    assert before == {name: links(lab.netns(f"by-{name}"))["nsm-1"] for name in connections}


def told(verdict: Verdict) -> str:
    """Outage and loss of one flow."""
    ways = (verdict.forward, verdict.back)
    silence = max(way.silence_ms for way in ways)
    rates = " and ".join(f"{way.rate:.0f}/s" for way in ways)
    sent = sum(way.sent for way in ways)
    return f"{rates}, longest silence {silence:.0f} ms, {verdict.lost} of {sent} packets lost"


def test_the_agent_killed_and_started_again_loses_and_writes_nothing(
    lab: Scene, tmp_path: Path, record_property: Tell
) -> None:
    name = f"{lab.near.name}/forwarder"
    trace = tmp_path / "trace"
    with traffic(lab, record_property), ExitStack() as stack:
        lab.kill(name)
        writes: list[str] = []
        if lab.dataplane == "vpp":
            writes = stack.enter_context(vpp_trace(cli_of(lab.near)))
        lab.world.start(traced(lab.daemon(name), trace))
        adopted = lab.events(name, "connections.adopted")[-1]
        end_trace(lab.process(name).pid)
        stack.close()
        assert (adopted["alive"], adopted["ended"]) == (3, 0)
        assert netlink_writes(trace) == []
        assert writes == []
    (again,) = lab.client("newcomer", "to-wireguard-service")
    carried(lab.probe(again, "newcomer", "to-wireguard", rate=200, seconds=0.2))


def test_managers_killed_and_started_again_lose_nothing(lab: Scene, record_property: Tell) -> None:
    names = [f"{node.name}/manager" for node in (lab.near, lab.far)]
    with traffic(lab, record_property, NSM_MAX_TOKEN_LIFETIME="20s"):
        marks = {name: lab.mark_log(f"by-{name}") for name, _, _ in WORLD}
        for name in names:
            lab.kill(name)
        lab.start(*names)
        for name, since in marks.items():  # every client notices, finds its packets flowing, and asks again
            lab.wait(f"by-{name}", "heal", since=since, is_alive=True)
    (again,) = lab.client("newcomer", "to-wireguard-service")
    carried(lab.probe(again, "newcomer", "to-wireguard", rate=200, seconds=0.2))


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGSTOP, id="stopped", marks=pytest.mark.minutes),
    ],
)
def test_without_the_registry_traffic_goes_on_and_new_clients_wait(
    lab: Scene, way: signal.Signals, record_property: Tell
) -> None:
    registry = f"{lab.near.name}/registry"
    with traffic(lab, record_property, NSM_MAX_TOKEN_LIFETIME="6s"):
        pid = lab.process(registry).pid
        if way is signal.SIGKILL:
            lab.kill(registry)
        else:
            os.kill(pid, signal.SIGSTOP)
        try:
            lab.refreshed("by-wireguard-0", 2)
        finally:
            if way is signal.SIGKILL:
                lab.start(registry)
            else:
                os.kill(pid, signal.SIGCONT)
        lab.endpoint("late-server", NSM_CIDR_PREFIX="[172.16.7.0/24],[fd00:172:7::/112]")
        (late,) = lab.client("late", "late-server-service")
        carried(lab.probe(late, "late", "late-server", rate=200, seconds=0.2))
