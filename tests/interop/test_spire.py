"""SPIRE under our whole lab: SVIDs are renewed all the time, SPIRE itself goes away and comes back; 0 lost."""

from collections.abc import Callable

import pytest

from . import matrix
from .attested import spire_of
from .casts import Cast, Mixed, played_by
from .course import CLIENT, PLACES
from .monitor import news_of
from .renewals import Renewals, kept

OURS = Cast("ours", on_spire=True)
RENEWALS = 2
TWO_MINUTES = 22
"""Renewals of an SVID of 20 s in that time: it is replaced every 5 s, and a little later on a busy machine."""
AWAY = {
    "agents": ("n1/spire-agent", "n2/spire-agent"),
    "server": ("n1/spire-server",),
    "server and agents": ("n1/spire-server", "n1/spire-agent", "n2/spire-agent"),
}


@pytest.mark.timeout(400)
@pytest.mark.quick("all-ours-on-SPIRE-local-ip")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_a_connection_outlives_its_svids(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        await Renewals.of(stage).each(run, RENEWALS)
        run.shown["healed"] = f"{RENEWALS} SVIDs each"


@pytest.mark.minutes
@pytest.mark.timeout(600)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_two_minutes_of_svids_every_five_seconds_lose_nothing(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        await Renewals.of(stage).each(run, TWO_MINUTES)
        run.shown["healed"] = f"{TWO_MINUTES} SVIDs each"


@pytest.mark.minutes
@pytest.mark.timeout(400)
@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("place", ["wireguard"])
@pytest.mark.parametrize("theatre", played_by(OURS), indirect=True)
async def test_a_connection_outlives_a_restart_of_spire(
    stage: Mixed, place: str, away: str, record_property: Callable[[str, object], None]
) -> None:
    """SIGKILL; while nothing renews SVIDs, those at hand serve for refreshes. Then all are renewed again."""
    async with kept(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        async with news_of(stage.near, CLIENT) as news:  # its identity comes from an agent as well
            with spire_of(stage.world).without(*AWAY[away]):
                await news.expiries(2)
        await Renewals.of(stage).each(run, RENEWALS)
        run.shown["healed"] = f"SPIRE's {away}"
