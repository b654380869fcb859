"""``nsmctl endpoint``, ``connect`` and ``disconnect``: workloads of a lab."""

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from nsmctl import guest
from nsmctl.commands import options
from nsmctl.commands.output import emit_json
from nsmctl.commands.report import show_connection
from nsmctl.lab.demonstration import POOLS
from nsmctl.lab.progress import Progress
from nsmctl.lab.ready import said
from nsmctl.lab.world import World


def endpoint(
    service: Annotated[str, typer.Argument(help="Name of the network service to offer.")],
    name: Annotated[
        str, typer.Option(help="Name of the endpoint; default: the service's with -endpoint.")
    ] = "",
    node: options.Node = "n2",
    payload: options.Payload = "IP",
    cidr: Annotated[str, typer.Option(help="Address pools, a pair from each group: [a,b],[c].")] = POOLS,
    label: Annotated[list[str] | None, typer.Option(help="key=value; several times.")] = None,
    lab: options.Lab = "nsm",
    as_json: options.Json = False,
) -> None:
    """Start an endpoint of SERVICE in a namespace of its own; it is registered when this returns."""
    world = World.find(lab)
    chosen = name or f"{service}-endpoint"
    settings = {"NSM_PAYLOAD": payload, "NSM_CIDR_PREFIX": cidr, "NSM_LABELS": _labels(label)}
    with Progress(quiet=as_json).step(f"endpoint {chosen!r} of {service!r} on {node}"):
        world.start_endpoint(chosen, world.topology.node(node), [service], settings)
    if as_json:
        emit_json({"endpoint": chosen, "service": service, "node": node, "payload": payload})


def connect(
    services: Annotated[
        list[str], typer.Argument(help="Services: name, or kernel://name[@domain]/interface?k=v.")
    ],
    name: Annotated[str, typer.Option(help="Name of the client.")] = "client",
    node: options.Node = "n1",
    label: Annotated[list[str] | None, typer.Option(help="key=value; several times.")] = None,
    lab: options.Lab = "nsm",
    manager: options.Manager = "",
    socket: options.Socket = "",
    as_json: options.Json = False,
) -> None:
    """Start a client in a namespace of its own and connect it to SERVICES; shows each path hop by hop.

    With --manager the client lives until this command is ended: by Ctrl-C or SIGTERM.
    """
    urls = [_url(service, number) for number, service in enumerate(services, 1)]
    if manager:
        with guest.joined(manager, socket, name, urls, {"NSM_LABELS": _labels(label)}) as joined:
            _show(joined.connections, f"nsmctl-{name}", as_json=as_json)
            with suppress(KeyboardInterrupt):
                signal.pause()
        return
    world = World.find(lab)
    with Progress(quiet=as_json).step(f"client {name!r} on {node}: {' '.join(urls)}"):
        settings = {"NSM_LABELS": _labels(label)}
        connections = world.start_client(name, world.topology.node(node), urls, settings)
    _show(connections, "", as_json=as_json)
    if not as_json:
        typer.echo(f"try: nsmctl run --in {name} -- ping -c 3 ADDRESS")


def disconnect(workload: options.WorkloadName, lab: options.Lab = "nsm") -> None:
    """End a client or an endpoint politely and remove its namespace; tells what a client could not close."""
    world = World.find(lab)
    process = world.state.processes.get(workload)
    since = Path(process.log).stat().st_size if process else 0
    with Progress().step(f"{workload!r} gone"):
        world.remove_workload(workload)
    for failed in said(process, "close.failed", since=since) if process else ():
        until = f"; ends by itself at {failed['ends_by_itself']}" if "ends_by_itself" in failed else ""
        typer.echo(
            f"not closed: {failed['connection']} of {failed['service']}: {failed['reason']}{until}", err=True
        )


def _show(connections: Sequence[Mapping[str, Any]], space: str, *, as_json: bool) -> None:
    if as_json:
        emit_json([dict(connection) for connection in connections])
        return
    for connection in connections:
        show_connection(connection)
    if space:
        typer.echo(f"in the network namespace {space} until this command ends")


def _url(service: str, number: int) -> str:
    return service if "://" in service else f"kernel://{service}/nsm-{number}"


def _labels(texts: list[str] | None) -> str:
    for text in texts or ():
        if not text.partition("=")[2]:
            raise typer.BadParameter(f"expected key=value, got {text!r}", param_hint="--label")
    return ",".join(text.replace("=", ":", 1) for text in texts or ())
