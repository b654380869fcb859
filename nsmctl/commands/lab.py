"""``nsmctl lab``: two nodes on this machine, each with manager, forwarder and, where there is one, its own VPP."""

import os
from dataclasses import asdict
from typing import Annotated

import typer

from nsmctl.commands import options
from nsmctl.commands.output import emit_json, facts, table
from nsmctl.errors import LabError
from nsmctl.lab import dataplanes, rootless, state, world
from nsmctl.lab.processes import marked
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import RUN, Topology, mark

app = typer.Typer(
    help="A mesh of two or more nodes on this machine, as network namespaces.", no_args_is_help=True
)


@app.command()
def up(
    lab: options.Lab = "nsm",
    nodes: Annotated[int, typer.Option(help="How many nodes.", min=1, max=50)] = 2,
    dataplane: options.Dataplane = "auto",
    mtu: options.Mtu = 1500,
    as_json: options.Json = False,
) -> None:
    """Build the lab and leave it running until ``nsmctl lab down``."""
    rootless.require_root("lab up")
    chosen = dataplanes.choose(dataplane)
    progress = Progress(quiet=as_json)
    progress.say(f"dataplane {chosen}")
    built = world.up(Topology(lab, nodes, chosen.name, mtu), progress)
    if as_json:
        emit_json(_described(built.state))
        return
    typer.echo(f"lab {lab!r} is up on the {chosen.name} dataplane; next:")
    typer.echo("  nsmctl endpoint my-service --node n2")
    typer.echo("  nsmctl connect my-service --node n1")
    typer.echo("  nsmctl lab down")


@app.command()
def status(lab: options.Lab = "nsm", as_json: options.Json = False) -> None:
    """What of the lab runs. Exit status 1 if something that should run does not."""
    recorded = state.load(lab)
    if as_json:
        emit_json(_described(recorded))
    else:
        facts({"dataplane": recorded.topology.dataplane, "directory": recorded.topology.directory}, indent=0)
        rows = [
            (p.name, p.pid if p.alive else "-", "running" if p.alive else "ended", p.log)
            for p in recorded.processes.values()
        ]
        table(("DAEMON", "PID", "STATE", "LOG"), rows)
        shown = [(w.name, w.role, w.node, w.space, " ".join(w.services)) for w in recorded.workloads.values()]
        typer.echo()
        table(("WORKLOAD", "ROLE", "NODE", "NAMESPACE", "SERVICES"), shown)
    if not all(process.alive for process in recorded.processes.values()):
        raise typer.Exit(1)


@app.command()
def down(lab: options.Lab = "nsm") -> None:
    """Remove the lab and everything in it; also what is left of one that failed."""
    rootless.require_root("lab down")
    if state.find(lab) is None and not marked(mark(lab), RUN / lab):
        raise LabError(f"no lab {lab!r} is up", hint=f"labs: {', '.join(state.names()) or 'none'}")
    world.down(lab, Progress())
    typer.echo(f"lab {lab!r} is gone")


def _described(recorded: state.State) -> dict[str, object]:
    """For ``--json``."""
    return {
        "lab": asdict(recorded.topology),
        "directory": str(recorded.topology.directory),
        "daemons": [{**asdict(process), "alive": process.alive} for process in recorded.processes.values()],
        "workloads": [asdict(workload) for workload in recorded.workloads.values()],
        "pid": os.getpid(),
    }
