"""``nsmctl run``: a command inside a namespace that has a network service."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from nsmctl import guest
from nsmctl.commands import options
from nsmctl.errors import LabError
from nsmctl.lab import launch, namespaces
from nsmctl.lab.progress import Progress
from nsmctl.lab.world import World


def run(
    command: Annotated[list[str], typer.Argument(help="The command and its arguments, after --.")],
    inside: Annotated[str, typer.Option("--in", help="A workload that is there already.")] = "",
    service: Annotated[str, typer.Option("--service", "-s", help="Or: connect to this service first.")] = "",
    node: options.Node = "n1",
    lab: options.Lab = "nsm",
    manager: options.Manager = "",
    socket: options.Socket = "",
) -> None:
    """Run COMMAND in the namespace of a workload, or in a new one that is connected to --service meanwhile.

    The exit status is the command's. Example: nsmctl run -s web -- curl http://172.16.0.0:8080
    """
    if bool(inside) == bool(service):
        raise typer.BadParameter("give either --in WORKLOAD or --service SERVICE")
    if manager:
        if inside:
            raise typer.BadParameter("--in is about a lab; with --manager give --service SERVICE")
        with guest.joined(manager, socket, f"run{os.getpid()}", [_url(service)], {}) as joined:
            status = _execute(joined.space, command)
        raise typer.Exit(status)
    world = World.find(lab)
    if inside:
        workload = world.state.workloads.get(inside)
        if workload is None:
            raise LabError(f"there is no workload {inside!r}", hint="see nsmctl lab status")
        raise typer.Exit(_execute(namespaces.path_of(workload.space), command))
    name = f"run{os.getpid()}"
    with Progress(quiet=not sys.stderr.isatty()).step(f"connected to {service!r}"):
        world.start_client(name, world.topology.node(node), [_url(service)], {})
    try:
        status = _execute(namespaces.path_of(world.topology.workload_space(name)), command)
    finally:
        world.remove_workload(name)
    raise typer.Exit(status)


def _url(service: str) -> str:
    return service if "://" in service else f"kernel://{service}/nsm-1"


def _execute(space: Path, command: list[str]) -> int:
    launcher = [sys.executable, "-I", "-S", str(launch.__file__), str(space)]
    return subprocess.run([*launcher, *command], check=False).returncode
