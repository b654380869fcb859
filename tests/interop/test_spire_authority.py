"""SPIRE's CA is replaced under our whole lab: 0 lost, and what the old one signed is let in no longer."""

import asyncio
from collections.abc import Callable

import pytest

from nsm.model.identity import Svid
from tests import attacks

from . import matrix
from .attested import SpireWorld, caller_of, spire_of
from .authority import Authority, signer, trusted
from .casts import Mixed, played_by
from .doors import doors
from .renewals import Renewals, kept
from .test_spire import OURS

RELIC = "relic"
"""A client whose SVID outlives the CA that signed it."""
RELIC_S = 3600
RENEWALS = 2
"""The second one is asked for by who has the first."""


@pytest.mark.minutes
@pytest.mark.timeout(500)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_a_connection_outlives_the_ca(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    world = spire_of(stage.world)
    authority = Authority(world.registrations)
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        relic = await _relic(stage, world)
        asked = doors(stage, run.addresses)
        old = authority.active
        new = authority.prepare()
        await _trusted(stage, 2)
        renewals = Renewals.of(stage)
        authority.activate(new)
        authority.taint(old)
        await renewals.each(run, RENEWALS)
        for door in asked:
            await attacks.let_in(door, relic)
        authority.revoke(old)
        await _trusted(stage, 1)
        await _signed_by(stage, new)
        for door in asked:
            assert "certificate" in await attacks.not_let_in(door, relic)
        run.shown["healed"] = "the CA"


@pytest.mark.minutes
@pytest.mark.timeout(500)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_a_connection_outlives_an_upgrade_that_replaces_the_ca(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    """Server and agents come back without their keys; the bundle, kept with the entries, has the old CA as well."""
    world = spire_of(stage.world)
    authority = Authority(world.registrations)
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        old = authority.active
        await asyncio.to_thread(world.reinstall)
        assert authority.active != old
        await Renewals.of(stage).each(run, RENEWALS)
        await _signed_by(stage, authority.active)
        run.shown["healed"] = "an upgrade with a new CA"


async def _relic(stage: Mixed, world: SpireWorld) -> Svid:
    """An SVID of the CA that signs now."""
    world.registrations.add(stage.near, "client", RELIC, ttl=RELIC_S)
    async with caller_of(world, stage.near, RELIC, stage.near.manager) as who:
        return who.node.identity.current.svid


async def _trusted(stage: Mixed, count: int) -> None:
    """Every node's agent gives out so many CAs of the lab."""
    for node in stage.world.topology.nodes:
        await trusted(node, spire_of(stage.world).registrations.trust_domain, count)


async def _signed_by(stage: Mixed, authority: str) -> None:
    """Every manager and forwarder shows an SVID of that CA."""
    for node in stage.world.topology.nodes:
        for url in (node.manager, node.forwarder):
            assert await signer(node, url) == authority, url
