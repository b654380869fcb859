"""A namespace of a workload that died is nobody's: no daemon on the way holds it beyond the call that brought it."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.fakes.caller import caller
from tests.scenes import Scene, settled


def holders(lab: Scene, space: Path) -> list[str]:
    """The lab's own daemons with a descriptor of that namespace."""
    found = []
    for name, process in lab.world.state.processes.items():
        for fd in Path(f"/proc/{process.pid}/fd").iterdir() if "/" in name else ():
            with suppress(FileNotFoundError):  # closed while we look
                if fd.samefile(space):
                    found.append(name)
    return found


def let_go(lab: Scene, space: Path) -> list[str]:
    """Who still holds it once all have had their time; shorter than what nobody lets go of is kept for."""
    left: list[str] = settled(lambda: holders(lab, space), lambda found: not found, 10.0)
    return left


def test_no_daemon_holds_a_namespace_once_the_request_is_answered(lab: Scene) -> None:
    server = lab.endpoint("server")
    space = lab.workload("inside")

    async def ask() -> list[list[str]]:
        async with caller("inside", lab.near.manager, lab.near.identities) as client:
            answer = await client.request(client.first("server-service"), client.kernel(space))
            # The caller's connection stands while this looks: only the end of the call can have let go.
            held = [let_go(lab, each) for each in (space, server)]
            await client.close(answer)
            return held

    assert asyncio.run(ask()) == [[], []]


def test_the_namespace_of_one_that_died_after_a_refused_request_goes_at_once(lab: Scene) -> None:
    space = lab.workload("inside")

    async def ask() -> list[str]:
        async with caller("inside", lab.near.manager, lab.near.identities) as client:
            await client.refused(client.first("nobody-s-service"), client.kernel(space))
            return let_go(lab, space)

    assert asyncio.run(ask()) == []
