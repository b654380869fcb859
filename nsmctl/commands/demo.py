"""``nsmctl demo``: from nothing to packets and back to nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from nsmctl.commands import options
from nsmctl.commands.output import emit_json
from nsmctl.commands.report import show_outcome
from nsmctl.lab import dataplanes, demonstration, rootless, world
from nsmctl.lab.demonstration import Demonstration
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import Topology


def _payload(text: str) -> str:
    if text.lower() not in {"ip", "ethernet", "both"}:
        raise typer.BadParameter(f"expected ip, ethernet or both, got {text!r}")
    return text.upper()


def demo(
    dataplane: options.Dataplane = "auto",
    payload: Annotated[str, typer.Option(help="ip, ethernet or both.", callback=_payload)] = "both",
    seconds: Annotated[float, typer.Option(help="How long to probe.", min=1, max=3600)] = 10,
    mtu: options.Mtu = 1500,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab running (needs root).")] = False,
    as_json: options.Json = False,
) -> None:
    """A workload on n1 reaches, by name, a network service on n2; its packets are counted.

    Builds a lab of two nodes, connects, sends probes of 1 kHz both ways, measures TCP, cuts the tunnel to show that
    the probes went through it, and removes everything again. The last line starts with "demo: ok" only if no probe
    was lost and nothing is left behind. Needs no root: without it the lab lives in user namespaces.
    """
    if keep:
        rootless.require_root("demo --keep")
    rootless.enter()
    chosen = dataplanes.choose(dataplane)
    progress = Progress(quiet=as_json)
    progress.say(f"dataplane {chosen}")
    topology = Topology(f"demo{os.getpid()}", 2, chosen.name, mtu)
    payloads = ("IP", "ETHERNET") if payload == "BOTH" else (payload,)
    for each in payloads:
        dataplanes.require_payload(chosen.name, each)
    left: list[str] = []
    with _counted(topology, left, keep=keep):
        shown = _run(topology, payloads, progress, seconds, keep=keep, as_json=as_json)
    problems = [f"{o.payload}: {problem}" for o in shown.outcomes for problem in o.problems]
    problems += [f"left behind: {fact}" for fact in left]
    _conclude(shown, chosen.name, problems, topology, keep=keep, as_json=as_json)


@contextmanager
def _counted(topology: Topology, left: list[str], *, keep: bool) -> Iterator[None]:
    """Fill ``left`` with what the machine has more, or less, afterwards."""
    before = demonstration.count(topology)
    yield
    if not keep:
        left += before.difference(demonstration.count(topology))


def _run(
    topology: Topology,
    payloads: tuple[str, ...],
    progress: Progress,
    seconds: float,
    *,
    keep: bool,
    as_json: bool,
) -> Demonstration:
    built = world.up(topology, progress)
    try:
        shown = Demonstration(built, progress, seconds)
        for payload in payloads:
            outcome = shown.payload(payload)
            if not as_json:
                show_outcome(outcome)
    except BaseException:
        world.down(topology.name, Progress(quiet=True), keep_logs=True)
        raise
    if not keep:
        world.down(topology.name, progress)
    return shown


def _conclude(
    shown: Demonstration,
    dataplane: str,
    problems: list[str],
    topology: Topology,
    *,
    keep: bool,
    as_json: bool,
) -> None:
    if as_json:
        emit_json(
            {
                "dataplane": dataplane,
                "ok": not problems,
                "outcomes": [outcome.json() for outcome in shown.outcomes],
                "problems": problems,
            }
        )
    elif problems:
        for problem in problems:
            typer.echo(f"  {problem}")
        typer.echo(f"demo: failed on {dataplane}: {len(problems)} problems")
    else:
        probes = sum(v.forward.received + v.back.received for o in shown.outcomes for v in o.probes)
        rest = f"lab {topology.name!r} kept" if keep else "nothing left behind"
        names = " and ".join(outcome.payload for outcome in shown.outcomes)
        typer.echo(f"demo: ok: {names} on {dataplane}, {probes} probes, 0 lost, {rest}")
    if problems:
        raise typer.Exit(1)
