"""Scenario 21: the endpoint is killed. With a spare the client is moved, without one it waits and heals.

The clients have the liveness settings that are shipped. How long packets went unanswered is told at the end of the run.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from datetime import datetime
from typing import Any

import pytest

from nsm.model.connection import MonitorScopeSelector, State
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.lab import daemons, namespaces
from nsmctl.lab.demonstration import POOLS
from tests.fakes.answered import Answered
from tests.fakes.caller import caller
from tests.scenes import WAIT_S, Scene, carried, links, settled
from tests.suites import MEASURED

MINUTES = pytest.mark.minutes
MOVES = [
    pytest.param("remote", True, id="remote-process"),
    pytest.param("local", True, id="local-process", marks=MINUTES),
    pytest.param("remote", False, id="remote-namespace", marks=MINUTES),
    pytest.param("local", False, id="local-namespace", marks=MINUTES),
]
"""Where the endpoint is, and whether its namespace lives on, as that of a container whose process is started again."""
PLACES = [pytest.param("local", id="local"), pytest.param("remote", id="remote", marks=MINUTES)]


class Killed:
    """The endpoint ``first`` of a service, its client ``user``, and what the client has been told since."""

    def __init__(self, lab: Scene, place: str) -> None:
        self.lab = lab
        self.node = lab.near if place == "local" else lab.far
        self.first, self.spare, self.user = (f"{name}-{place}" for name in ("first", "spare", "user"))
        self.service = f"mortal-{place}"
        self.start(self.first)
        (self.before,) = lab.client(self.user, self.service)
        self.since = lab.mark_log(self.user)

    def start(self, name: str) -> None:
        self.lab.endpoint(name, node=self.node, services=(self.service,))

    def again(self) -> dict[str, Any]:
        """The killed one comes back under its name, in the namespace it had or a new one: its ``ready`` event."""
        path = self.lab.netns(self.first)
        if not path.exists():
            namespaces.create(path.name)
        env = {"NSM_SERVICE_NAMES": self.service, "NSM_PAYLOAD": "IP", "NSM_CIDR_PREFIX": POOLS}
        (ready,) = self.lab.world.start(daemons.endpoint(self.node, self.first, path, env))
        return ready

    def stream(self, *ends: str) -> Answered:
        target = str(self.before["dst_ip_addrs"][0]).partition("/")[0]
        return Answered(self.lab.netns(self.user), target, {name: self.lab.netns(name) for name in ends})

    def healed(self) -> dict[str, Any]:
        return self.lab.wait(self.user, "connected", since=self.since)

    def actions(self) -> list[str]:
        """What the client decided, one after the other."""
        return [each["action"] for each in self.lab.events(self.user, "heal", since=self.since)]

    def state(self) -> State:
        """What the manager tells who asks, ``nsmctl get connections`` among them."""

        async def ask() -> State:
            async with caller(self.user, self.lab.near.manager, self.lab.near.identities) as client:
                selector = MonitorScopeSelector(network_services=(self.service,))
                stream = client.node.channels.get(client.url).stream(MONITOR_CONNECTIONS, selector)
                async with aclosing(stream) as events:
                    first = await anext(events)
            return next(each.state for each in first.connections.values() if each.route.index == 1)

        return asyncio.run(ask())


def since(ready: dict[str, Any], back: dict[str, Any]) -> str:
    """How long the client took once its endpoint said it was there; it may be connected before that is said."""
    took = datetime.fromisoformat(back["timestamp"]) - datetime.fromisoformat(ready["timestamp"])
    return f"healed {took.total_seconds() * 1000:.0f} ms after its return"


@pytest.mark.parametrize(("place", "is_alone"), MOVES)
def test_a_client_whose_endpoint_is_killed_is_moved_to_the_spare(
    lab: Scene, place: str, is_alone: bool, record_property: Callable[[str, object], None]
) -> None:
    killed = Killed(lab, place)
    killed.start(killed.spare)
    with killed.stream(killed.first, killed.spare) as stream:
        stream.flows_to(killed.first, WAIT_S)
        lab.kill(killed.first)
        if not is_alone:  # as the end of a container
            stream.leave(killed.first)
            namespaces.delete(lab.netns(killed.first).name)
        moved = killed.healed()
        stream.flows_to(killed.spare, WAIT_S)
    record_property(MEASURED, str(stream))
    assert (moved["endpoint"], killed.actions()[-1]) == (killed.spare, "reselect")
    assert moved["src_ip_addrs"] == killed.before["src_ip_addrs"]
    if is_alone:
        assert settled(lambda: links(lab.netns(killed.first)), lambda found: not found) == {}
    carried(lab.probe(moved, killed.user, killed.spare, rate=200, seconds=0.2))


@pytest.mark.parametrize("place", PLACES)
def test_without_a_spare_packets_flow_for_as_long_as_they_can_and_the_client_says_what_is_wrong(
    lab: Scene, place: str, record_property: Callable[[str, object], None]
) -> None:
    killed = Killed(lab, place)
    index = links(lab.netns(killed.user))
    with killed.stream(killed.first) as stream:
        stream.flows_to(killed.first, WAIT_S)
        lab.kill(killed.first)
        told = lab.wait(killed.user, "healing", since=killed.since)
        assert f"endpoint '{killed.first}' is registered, but nobody listens on its socket" in told["reason"]
        assert settled(killed.state, lambda state: state is State.DOWN) is State.DOWN
        ready = killed.again()
        back = killed.healed()
        stream.flows_to(killed.first, WAIT_S)
    record_property(MEASURED, f"{stream}; {since(ready, back)}")
    assert stream.lost == 0
    assert set(killed.actions()) == {"request"}
    assert back["src_ip_addrs"] == killed.before["src_ip_addrs"]
    assert links(lab.netns(killed.user)) == index
    assert settled(killed.state, lambda state: state is State.UP) is State.UP


@MINUTES
@pytest.mark.parametrize("place", ["local", "remote"])
def test_an_endpoint_that_comes_back_in_a_new_namespace_is_connected_again(
    lab: Scene, place: str, record_property: Callable[[str, object], None]
) -> None:
    killed = Killed(lab, place)
    with ExitStack() as stack:
        stream = stack.enter_context(killed.stream(killed.first))
        stream.flows_to(killed.first, WAIT_S)
        lab.kill(killed.first)
        stream.leave(killed.first)
        namespaces.delete(lab.netns(killed.first).name)
        lab.wait(killed.user, "heal", since=killed.since, action="reselect")
        ready = killed.again()
        stream.join(killed.first, lab.netns(killed.first))
        back = killed.healed()
        stream.flows_to(killed.first, WAIT_S)
    record_property(MEASURED, f"{stream}; {since(ready, back)}")
    carried(lab.probe(back, killed.user, killed.first, rate=200, seconds=0.2))
