"""Scenario 26 with identities of SPIRE: the attacks of ``test_refusals.py``, and an SVID whose time is over."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests import attacks
from tests.attacks import Attack
from tests.scenes import carried

from .casts import Mixed, played_by
from .doors import door
from .test_spire import OURS

RATE = 200


@pytest.fixture(params=attacks.HOPS)
async def attack(stage: Mixed, request: pytest.FixtureRequest) -> AsyncIterator[Attack]:
    """The victim is connected; after the attack its packets still arrive."""
    near = stage.near
    await asyncio.to_thread(stage.cast_endpoint, attacks.ENDPOINT, node=near, payload="IP")
    victim = await asyncio.to_thread(stage.cast_client, attacks.VICTIM, attacks.SERVICE, node=near)
    yield door(stage, request.param, victim)
    carried(
        await asyncio.to_thread(stage.probe, victim, attacks.VICTIM, attacks.ENDPOINT, rate=RATE, seconds=0.2)
    )


async def an_expired_svid(attack: Attack) -> None:
    """SPIRE has long given its owner another."""
    async with attack.caller() as thief:
        svid = thief.node.identity.current.svid
    await attacks.let_in(attack, svid)
    await asyncio.sleep(svid.not_after + 1 - time.time())
    assert "expired" in await attacks.not_let_in(attack, svid)


@pytest.mark.minutes
@pytest.mark.timeout(400)
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_each_is_refused_with_a_reason_and_one_audit_record(attack: Attack) -> None:
    await attacks.each_is_refused(attack, (*attacks.ATTACKS, an_expired_svid))
