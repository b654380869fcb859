"""Options that several commands share, and their completion."""

from typing import Annotated

import typer

from nsmctl.lab import identities, state
from nsmctl.lab.dataplanes import Choice
from nsmctl.mesh import Mesh, at, of_lab


def _labs(incomplete: str) -> list[str]:
    return [name for name in state.names() if name.startswith(incomplete)]


def _workloads(incomplete: str) -> list[str]:
    found = (state.find(name) for name in state.names())
    names = {workload for lab in found if lab is not None for workload in lab.workloads}
    return sorted(name for name in names if name.startswith(incomplete))


def _nodes(incomplete: str) -> list[str]:
    found = (state.find(name) for name in state.names())
    names = {node.name for lab in found if lab is not None for node in lab.topology.nodes}
    return sorted(name for name in names if name.startswith(incomplete))


def _payload(text: str) -> str:
    payload = text.upper()
    if payload not in {"IP", "ETHERNET"}:
        raise typer.BadParameter(f"expected ip or ethernet, got {text!r}")
    return payload


Lab = Annotated[str, typer.Option("--lab", help="Name of the lab.", autocompletion=_labs)]
Registry = Annotated[
    str, typer.Option("--registry", envvar="NSM_REGISTRY_URL", help="Instead of a lab: a registry's URL.")
]
Manager = Annotated[
    str, typer.Option("--manager", envvar="NSM_CONNECT_TO", help="Instead of a lab: a manager's URL.")
]
Socket = Annotated[
    str,
    typer.Option(
        "--spiffe-socket", envvar="SPIFFE_ENDPOINT_SOCKET", help="There: the Workload API, unix://…"
    ),
]
Node = Annotated[str, typer.Option("--node", help="The node: n1, n2, …", autocompletion=_nodes)]
WorkloadName = Annotated[str, typer.Argument(help="Name of the workload.", autocompletion=_workloads)]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
Dataplane = Annotated[
    Choice,
    typer.Option(
        "--dataplane", help="auto takes VPP where one is installed and you are root, else the kernel."
    ),
]
Mtu = Annotated[
    int, typer.Option("--mtu", help="MTU of the cable between the nodes, bytes.", min=1280, max=9000)
]
Payload = Annotated[
    str,
    typer.Option("--payload", help="ip (WireGuard between nodes) or ethernet (VXLAN).", callback=_payload),
]


def mesh(lab: str, registry: str, manager: str, socket: str) -> Mesh:
    """The mesh that was named by URL, else the lab; LabError if that is not up."""
    if registry or manager:
        return at(registry, manager, socket, identities.OPERATOR)
    return of_lab(state.load(lab).topology)
