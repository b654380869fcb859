"""Each role in the other's hands, one at a time: ours in a world of Go's, and Go's in a world of ours."""

from collections.abc import Callable

import pytest

from . import matrix
from .casts import ALL_GO, ROLES, Cast, Mixed, played_by
from .course import PLACES, course

ON_SPIRE = (
    Cast("ours", on_spire=True),
    Cast("Go", ("forwarder",), on_spire=True),
    Cast("Go", ("manager", "forwarder"), on_spire=True),
    Cast("ours", ("registry", "manager"), everywhere=True, on_spire=True),
)
"""Our whole lab; our forwarder, then our manager too, among Go's; our workloads with Go's manager and registry."""
CASTS = (
    ALL_GO,
    *(Cast("Go", (role,)) for role in ROLES),
    *(Cast("ours", (role,)) for role in ROLES),
    *ON_SPIRE,
)
QUICK = (
    "our-forwarder-wireguard",
    "Go-forwarder-vxlan",
)
"""What every run has: two makes of forwarders at the ends of each tunnel, ours at the client's node of one and Go's at
that of the other."""


@pytest.mark.timeout(400)
@pytest.mark.quick(*QUICK)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("theatre", played_by(*CASTS), indirect=True)
async def test_a_connection_lives_and_ends(
    stage: Mixed, place: str, record_property: Callable[[str, object], None]
) -> None:
    cast = stage.cast
    async with course(stage, place) as run:
        record_property(matrix.SHOWN, run.shown)
        await run.connect()
        await run.ping()
        await run.refresh()
        await run.heal(cast.swapped[0] if cast.swapped else "forwarder")
        await run.close()
