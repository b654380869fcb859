"""Each role in the other's hands, one at a time: ours in a world of Go's, and Go's in a world of ours."""

from collections.abc import Callable, Iterator

import pytest

from . import matrix, peers
from .casts import ROLES, Cast, Mixed
from .course import PLACES, course

ALL_GO = Cast("Go")
CASTS = (ALL_GO, *(Cast("Go", (role,)) for role in ROLES), *(Cast("ours", (role,)) for role in ROLES))
QUICK = {
    ("all Go", "local-ip"),
    ("our forwarder", "wireguard"),
    ("our forwarder", "vxlan"),
    ("Go forwarder", "wireguard"),
    ("Go forwarder", "vxlan"),
}
"""What every run has: the whole Go world once, and two makes of forwarders at the ends of each tunnel."""


def cases() -> Iterator[object]:
    for cast in CASTS:
        for place in PLACES:
            is_quick = (cast.name, place) in QUICK
            marks = [*peers.needs(*cast.peers), *([] if is_quick else [pytest.mark.minutes])]
            yield pytest.param(cast, place, marks=marks, id=f"{cast.name.replace(' ', '-')}-{place}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("theatre", "place"), [*cases()], indirect=["theatre"])
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
