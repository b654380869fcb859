"""How connections and demonstrations look to a person."""

from collections.abc import Mapping
from typing import Any

import typer

from nsmctl.commands.output import facts, table
from nsmctl.lab.demonstration import Outcome

_REMOTE = ("VXLAN/", "WIREGUARD/", "IPSEC/")


def show_connection(connection: Mapping[str, Any]) -> None:
    """The path hop by hop, and what the workload got."""
    rows = [
        (index, segment.get("name"), segment.get("spiffe_id", ""), segment.get("id"))
        for index, segment in enumerate(connection.get("path", ()))
    ]
    table(("HOP", "NAME", "VERIFIED SPIFFE ID", "CONNECTION ID"), rows)
    facts(
        {
            "mechanism": connection.get("mechanism", ""),
            "between nodes": _tunnel(connection) or "the same node",
            "interface": connection.get("interface", ""),
            "client": " ".join(connection.get("src_ip_addrs", ())),
            "endpoint": " ".join(connection.get("dst_ip_addrs", ())),
            "MTU": connection.get("mtu", ""),
        }
    )


def _tunnel(connection: Mapping[str, Any]) -> str:
    """The remote mechanism a forwarder of the path has recorded, empty for a local connection."""
    values = [str(value) for hop in connection.get("path", ()) for value in hop.get("metrics", {}).values()]
    return next((value.partition("/")[0] for value in values if value.startswith(_REMOTE)), "")


def show_outcome(outcome: Outcome) -> None:
    """Everything one payload showed."""
    typer.echo(f"\npayload {outcome.payload}")
    show_connection(outcome.connection)
    typer.echo()
    rows = [
        (
            f"{v.flow.client} - {v.flow.endpoint}",
            f"{v.forward.sent}/{v.forward.lost}",
            f"{v.back.sent}/{v.back.lost}",
            v.rtt_p50_us if v.rtt_p50_us is not None else "-",
            v.rtt_p99_us if v.rtt_p99_us is not None else "-",
        )
        for v in outcome.probes
    ]
    table(("PROBES", "TO ENDPOINT sent/lost", "TO CLIENT sent/lost", "RTT p50 us", "p99 us"), rows)
    for node, packets in outcome.tunnels.items():
        typer.echo(f"  tunnel on {node} counted {packets.rx} packets in, {packets.tx} out")
    typer.echo(f"  TCP, one stream: {outcome.gbit_s:.2f} Gbit/s")
    sent = sum(v.forward.sent + v.back.sent for v in outcome.cut)
    arrived = sum(v.forward.received + v.back.received for v in outcome.cut)
    typer.echo(
        f"  tunnel cut: {sent} probes sent, {arrived} arrived, {outcome.dropped_by_cut} packets dropped by the cut"
    )
    for problem in outcome.problems:
        typer.echo(f"  PROBLEM: {problem}")
    typer.echo()
