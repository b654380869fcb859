"""Two trust domains federated by SPIRE: the second node is in the other one, and each trusts the other by its bundle.

The registry refuses names of other domains (``name@domain``): what is shown is identity and transport, with one
registry for both. All managers, forwarders and workloads of the second node show SVIDs of ``far.nsm``.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nsm.model.errors import Code
from nsm.model.identity import Svid
from tests import attacks
from tests.attacks import Attack
from tests.scenes import settled

from . import federation, matrix
from .attested import FOREIGN, SpireWorld, caller_of, spire_of
from .authority import Authority, signer, trusted
from .casts import Cast, Mixed, played_by
from .course import CLIENT, ENDPOINT, course
from .doors import door
from .renewals import Renewals, kept

FEDERATED = Cast("ours", on_spire=True, is_federated=True)
RENEWALS = 2
REGISTRY = "n1/registry"
STRANGER = "stranger"
WITHDRAWN = "its trust domain is trusted no longer"


@pytest.mark.minutes
@pytest.mark.timeout(400)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(FEDERATED), indirect=True)
async def test_a_connection_into_another_trust_domain_outlives_its_svids(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        assert [hop["spiffe_id"].split("/")[2] for hop in run.addresses["path"]] == [
            *["lab.nsm"] * 3,
            *[FOREIGN] * 3,
        ]
        await Renewals.of(stage).each(run, RENEWALS)
        run.shown["healed"] = f"{RENEWALS} SVIDs each"


@pytest.mark.minutes
@pytest.mark.timeout(500)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(FEDERATED), indirect=True)
async def test_the_other_domains_new_ca_comes_by_its_bundle_endpoint(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    world = spire_of(stage.world)
    authority = Authority(world.foreign)
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        old = authority.active
        new = authority.prepare()
        federation.refresh(world.registrations, world.foreign)
        await _trusted(stage, 2)
        renewals = Renewals.of(stage)
        authority.activate(new)
        authority.taint(old)
        await renewals.each(run, RENEWALS)
        authority.revoke(old)
        federation.refresh(world.registrations, world.foreign)
        await _trusted(stage, 1)
        assert await signer(stage.near, stage.far.manager) == new
        run.shown["healed"] = "the other domain's CA"


@pytest.mark.minutes
@pytest.mark.timeout(400)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(FEDERATED), indirect=True)
async def test_who_is_federated_no_longer_is_refused_until_it_is_again(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    world = spire_of(stage.world)
    async with course(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        await run.connect()
        stranger = await _stranger(stage, world)
        asked = door(stage, "manager", run.addresses)
        await attacks.let_in(asked, stranger)
        since, asked_since = stage.mark_log(REGISTRY), stage.mark_log(asked.daemon)
        federation.withdraw(world.registrations, world.foreign)
        await trusted(stage.near, FOREIGN, 0)
        await asyncio.to_thread(_ended, stage, since)
        await _heard(stage, asked.daemon, asked_since, trusts=False)
        await attacks.not_let_in(asked, stranger)
        await _not_passed_on(asked)
        asked_since = stage.mark_log(asked.daemon)
        federation.federate(world.registrations, world.foreign)
        await trusted(stage.near, FOREIGN, 1)
        await _heard(stage, asked.daemon, asked_since, trusts=True)
        await attacks.let_in(asked, stranger)
        await run.healed("the federation")
        await run.ping()
        await run.refresh()
        await run.close()


async def _stranger(stage: Mixed, world: SpireWorld) -> Svid:
    """An SVID of the other domain."""
    world.foreign.add(stage.far, "client", STRANGER)
    async with caller_of(world, stage.far, STRANGER, stage.near.manager) as who:
        return who.node.identity.current.svid


def _ended(stage: Mixed, since: int) -> None:
    """A connection of the other domain's manager to the registry is ended, and recorded; a new one is refused."""

    def ended() -> list[dict[str, Any]]:
        found = stage.events(REGISTRY, "audit", since=since)
        return [record for record in found if record["refusal"].endswith(WITHDRAWN)]

    assert settled(ended, bool), stage.events(REGISTRY, "audit", since=since)


async def _heard(stage: Mixed, daemon: str, since: int, *, trusts: bool) -> None:
    """The agent tells its callers one after the other: this daemon knows by now whether the other domain is trusted."""

    def updates() -> list[dict[str, Any]]:
        return stage.events(daemon, "identity.updated", since=since)

    def heard() -> bool:
        return any((FOREIGN in update["trust"]) is trusts for update in updates())

    assert await asyncio.to_thread(settled, heard, bool), updates()


async def _not_passed_on(asked: Attack) -> None:
    """The near manager, which a client of its own domain asks for the other's endpoint, says why it cannot."""
    async with asked.caller() as client:
        mechanism = client.kernel(asked.lab.netns(CLIENT), "nsm-2")
        error = await client.refused(client.first(f"{ENDPOINT}-service"), mechanism)
    assert error.code is Code.UNAVAILABLE, error
    assert "certificate" in error.message, error


async def _trusted(stage: Mixed, count: int) -> None:
    """Every node's agent gives out so many CAs of the other domain."""
    for node in stage.world.topology.nodes:
        await trusted(node, FOREIGN, count)
