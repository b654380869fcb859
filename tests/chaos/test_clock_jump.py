"""The wall clock of a node is set by hours, forward and back: who is connected stays so, and newcomers are served.

The daemons and workloads of the node have a clock of their own (``tests/fakes/clock.py``).
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from nsm.identity.tokens import ALGORITHM
from nsm.model.errors import Code, NsmError
from nsm.service.daemon import Node
from nsmctl.lab import identities, world
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.progress import Progress
from tests.fakes.caller import FixedTokens, caller
from tests.fakes.clock import WallClock
from tests.scenes import WAIT_S, Scene, build, carried, links

pytestmark = pytest.mark.linux

SERVICE = "server-service"
ENV = {"NSM_MAX_TOKEN_LIFETIME": "18s", "NSM_REQUEST_TIMEOUT": "2s", "NSM_EXPIRE_PERIOD": "9s"}
"""Short lives: a token that is not replaced, or a timer that goes by the wall clock, shows within the test."""


@dataclass
class Place:
    """A node and its clock."""

    lab: Scene
    clock: WallClock

    def set(self, hours: float) -> None:
        """Set the clock, and wait until the daemons have certificates that are good by it."""
        daemons = [f"{self.lab.near.name}/{role}" for role in ("registry", "manager", "forwarder")]
        marks = {name: self.lab.mark_log(name) for name in (*daemons, *self.lab.added)}
        self.clock.set(hours)
        for name, since in marks.items():
            self.lab.wait(name, "identity.updated", since=since)

    def client(self, name: str) -> dict[str, Any]:
        (connection,) = self.lab.client(name, SERVICE, env={**ENV, **self.clock.env})
        return connection

    def refreshed(self, connection: dict[str, Any]) -> None:
        """Wait until a client has asked again, by the node's clock."""
        near = self.lab.near
        words = ["-m", "tests.fakes.refreshes", near.manager, str(near.identities), connection["connection"]]
        environment = {**os.environ, **self.clock.env}
        subprocess.run([sys.executable, *words, "1", str(WAIT_S)], env=environment, check=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    clock = WallClock(tmp_path_factory.mktemp("clock"))
    name = f"clk{os.getpid()}"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**ENV, **clock.env}.items():
            patch.setenv(key, value)
        lab = build("linux", name, 1)
    try:
        lab.endpoint("server", node=lab.near, env={**ENV, **clock.env})
        yield Place(lab, clock)
    finally:
        world.down(name, Progress(quiet=True))


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused(place: Place, claim: str) -> None:
    near = place.lab.near
    manager = f"spiffe://{identities.TRUST_DOMAIN}/manager/manager-{near.name}"

    def ahead(node: Node) -> FixedTokens:
        svid = node.identity.current.svid
        key: Any = serialization.load_der_private_key(svid.key, password=None)
        begin, exp = int(time.time()) + 3600, int(time.time()) + 7200
        claims = {"sub": svid.spiffe_id, "aud": [manager], claim: begin, "exp": exp}
        text = jwt.encode(claims, key, algorithm=ALGORITHM)
        return FixedTokens(text, exp * 1_000_000_000)

    async def refused() -> NsmError:
        async with caller("odd", near.manager, near.identities, tokens=ahead) as who:
            return await who.refused(who.first(SERVICE))

    place.lab.workload("odd")
    try:
        error = asyncio.run(refused())
    finally:
        place.lab.remove("odd")
    assert error.code is Code.PERMISSION_DENIED
    assert "tokens_expired: the token of segment 0 is good in" in error.message


def test_hours_forward_and_back(place: Place) -> None:
    lab = place.lab
    before, marks = lab.census(), lab.marks()
    steady = place.client("steady")
    interface = links(lab.netns("steady"))
    with lab.probes(flows_of(steady)[:1], "steady", "server", rate=200) as probes:
        for number, hours in enumerate((5, 1)):
            place.set(hours)
            place.refreshed(steady)
            place.client(f"newcomer-{number}")
            lab.remove(f"newcomer-{number}")
        carried(probes.finish(), families=1)
    assert links(lab.netns("steady")) == interface
    for name in marks:
        assert lab.events(name, "connection.expired", since=marks[name]) == []
    lab.remove("steady")
    assert lab.left_since(before) == ()
    assert lab.tracebacks(marks) == []
