"""Many Requests at one moment: all succeed at the first try within NSM's 15 s, all carry packets while all are up."""

import asyncio
from pathlib import Path

import pytest

from nsmctl.lab.probes import Flow, Probes
from perf.control.driver import DEADLINE, Driver, Sample, driver
from perf.control.processes import Processes
from perf.stage import Stage

from .cases import ONE_PROCESS, PROCESSES, Case

SECONDS = 2.0
RATE = 10.0


def parametrised(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """Every case by its name, in the lab it needs."""
    return pytest.mark.parametrize(
        ("stage", "case"),
        [pytest.param(case.lab, case, id=case.name, marks=case.marks) for case in cases],
        indirect=["stage"],
    )


def silent(flows: list[Flow], client: Path, endpoint: Path) -> list[str]:
    """The flows that lost packets; all of them together, and every one has sent both ways."""
    with Probes(flows, client=client, endpoint=endpoint, rate=RATE, seconds=SECONDS) as running:
        verdicts = running.finish()
    assert len(verdicts) == len(flows)
    assert all(each.forward.sent == each.back.sent == RATE * SECONDS for each in verdicts)
    return [f"{v.flow.client} lost {v.forward.lost} there, {v.back.lost} back" for v in verdicts if v.lost]


def failed(samples: list[Sample]) -> list[str]:
    """The calls that did not succeed, or not in time."""
    late = [f"{each.number} took {each.seconds:.1f} s" for each in samples if each.seconds > DEADLINE]
    return late + [f"{each.number}: {each.error}" for each in samples if each.error]


@parametrised(ONE_PROCESS)
def test_from_one_process(clean: Stage, case: Case) -> None:
    node = clean.far if case.is_remote else clean.near
    service = clean.endpoint("server", node, case.payload)
    space = clean.client("caller")

    async def load(calls: Driver) -> None:
        assert failed(await calls.at_once(calls.request, range(case.count))) == []
        flows = calls.flows()
        assert len(flows) == 2 * case.count, "both address families of each"
        assert await asyncio.to_thread(silent, flows, space, clean.netns("server")) == []
        assert failed(await calls.at_once(calls.refresh, range(case.count))) == []
        assert failed(await calls.close_all()) == []

    async def run() -> None:
        async with driver(clean.near, ["caller"], service, space) as calls:
            await load(calls)

    asyncio.run(run())


@parametrised(PROCESSES)
def test_from_as_many_processes(clean: Stage, case: Case) -> None:
    node = clean.far if case.is_remote else clean.near
    service = clean.endpoint("server", node, case.payload)
    clients = Processes(clean, [f"caller{number}" for number in range(case.count)])
    try:
        clients.start()
        outcomes = clients.ask(service)
        assert [each.failures for each in outcomes if each.failures or each.seconds > DEADLINE] == []
        flows = clients.flows(outcomes)
        assert len(flows) == 2 * case.count, "both address families of each"
        assert silent(flows, clean.netns("server"), clean.netns("server")) == []
    finally:
        clients.stop()
