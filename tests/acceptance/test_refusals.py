"""Scenario 26: who may not is refused with a reason, and each refusal is exactly one audit record.

Against the running manager and forwarder, over their real sockets, while another client's connection carries on.
``tests/interop/test_spire_refusals.py`` does the same with identities of SPIRE.
"""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from nsmctl.lab import identities
from tests import attacks
from tests.attacks import Attack
from tests.fakes.caller import Caller, caller
from tests.scenes import Scene, carried


@pytest.fixture(params=attacks.HOPS)
def attack(lab: Scene, request: pytest.FixtureRequest) -> Any:
    """The victim is connected; after the attack its packets still arrive."""

    def opened(name: str, url: str, tokens: Any = None) -> AbstractAsyncContextManager[Caller]:
        return caller(name, url, lab.near.identities, tokens=tokens)

    lab.endpoint(attacks.ENDPOINT, node=lab.near)
    (connection,) = lab.client(attacks.VICTIM, attacks.SERVICE)
    identities.register(lab.near, "client", attacks.THIEF)
    yield Attack(lab, request.param, connection, opened)
    identities.unregister(lab.near, attacks.THIEF)
    carried(lab.probe(connection, attacks.VICTIM, attacks.ENDPOINT, rate=200, seconds=0.2))


async def test_each_is_refused_with_a_reason_and_one_audit_record(attack: Attack) -> None:
    await attacks.each_is_refused(attack, attacks.ATTACKS)
