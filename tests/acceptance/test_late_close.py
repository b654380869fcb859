"""A Close reaches every hop that is alive, whatever hop was away when it came: long before the tokens expire."""

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from typer.testing import CliRunner

from nsm.model.connection import Connection
from nsmctl.__main__ import app
from nsmctl.lab.state import load
from tests.fakes.caller import Caller, caller
from tests.scenes import Scene, links, settled

Result = TypeVar("Result")


def by_caller(lab: Scene, work: Callable[[Caller], Awaitable[Result]]) -> Result:
    """What ``work`` gives, done as the workload ``inside``."""

    async def run() -> Result:
        async with caller("inside", lab.near.manager, lab.near.identities) as client:
            return await work(client)

    return asyncio.run(run())


def request(lab: Scene, before: Connection | None = None) -> Connection:
    space = lab.netns("inside")
    return by_caller(
        lab, lambda client: client.request(before or client.first("server-service"), client.kernel(space))
    )


def close(lab: Scene, connection: Connection) -> None:
    by_caller(lab, lambda client: client.close(connection))


@pytest.fixture
def connection(lab: Scene) -> Connection:
    """Of ``inside`` on the first node with ``server`` on the second."""
    lab.endpoint("server")
    lab.workload("inside")
    answer = request(lab)
    assert [len(links(lab.netns(name))) for name in ("inside", "server")] == [1, 1]
    return answer


def both_ends_go(lab: Scene, client: str = "inside") -> None:
    def left() -> list[dict[str, int]]:
        return [links(lab.netns(name)) for name in (client, "server")]

    assert settled(left, lambda found: not any(found)) == [{}, {}]


@pytest.mark.parametrize("away", ["near forwarder", "far manager", "far forwarder"])
def test_a_close_while_a_hop_is_away_is_made_up_for_when_it_is_back(
    lab: Scene, connection: Connection, away: str
) -> None:
    place, _, role = away.partition(" ")
    name = f"{(lab.near if place == 'near' else lab.far).name}/{role}"
    lab.kill(name)
    close(lab, connection)
    lab.start(name)
    both_ends_go(lab)


def test_a_close_after_both_managers_forgot_the_connection_follows_its_path(
    lab: Scene, connection: Connection
) -> None:
    names = [f"{node.name}/manager" for node in (lab.near, lab.far)]
    for name in names:
        lab.kill(name)
    lab.start(*names)
    close(lab, connection)
    both_ends_go(lab)


def test_the_same_connection_can_be_made_again_after_a_late_close(lab: Scene, connection: Connection) -> None:
    manager, forwarder = f"{lab.far.name}/manager", f"{lab.far.name}/forwarder"
    lab.kill(forwarder)
    since = lab.mark_log(manager)
    close(lab, connection)
    lab.wait(manager, "close.late", since=since)
    lab.start(forwarder)
    lab.wait(manager, "close.made_up_for", since=since)
    again = request(lab, connection)
    assert [len(links(lab.netns(name))) for name in ("inside", "server")] == [1, 1]
    close(lab, again)
    both_ends_go(lab)


def test_a_client_that_ends_while_its_manager_is_away_closes_when_it_is_back(lab: Scene) -> None:
    lab.endpoint("server")
    lab.client("user", "server-service", NSM_CLOSE_PATIENCE="25s")
    manager = f"{lab.near.name}/manager"
    lab.kill(manager)
    since = lab.mark_log("user")
    os.kill(lab.process("user").pid, signal.SIGTERM)
    lab.wait("user", "close.waiting", since=since)
    lab.start(manager)
    lab.wait("user", "stopped", since=since)
    assert lab.events("user", "close.failed", since=since) == []
    both_ends_go(lab, "user")


def test_who_disconnects_while_the_manager_stays_away_is_told_what_is_left_and_until_when(lab: Scene) -> None:
    lab.endpoint("server")
    lab.client("user", "server-service", NSM_CLOSE_PATIENCE="1s")
    lab.kill(f"{lab.near.name}/manager")
    done = CliRunner().invoke(app, ["disconnect", "user", "--lab", lab.world.topology.name])
    lab.world.state = load(lab.world.topology.name)
    assert done.exit_code == 0
    (told,) = re.findall("^not closed: user-0 of server-service: (.*)$", done.stderr, re.MULTILINE)
    assert re.fullmatch(r"UNAVAILABLE: dialling .*; ends by itself at [0-9T:+-]+", told)
    lab.start(f"{lab.near.name}/manager")  # its namespace has gone, so the forwarder closes
    assert settled(lambda: links(lab.netns("server")), lambda found: not found) == {}
