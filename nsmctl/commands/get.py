"""``nsmctl get``: services, endpoints, connections, forwarders."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from nsm.service.logs import setup_logs
from nsmctl import inspect
from nsmctl.commands import options
from nsmctl.commands.output import emit_json, table
from nsmctl.inspect import Seen

Kind = Literal["services", "endpoints", "connections", "forwarders"]


def get(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    lab: options.Lab = "nsm",
    registry: options.Registry = "",
    manager: options.Manager = "",
    socket: options.Socket = "",
    as_json: options.Json = False,
) -> None:
    """List what the mesh knows: services, endpoints, connections (packets and drops of each side), forwarders."""
    setup_logs("ERROR", daemon="nsmctl")
    mesh = options.mesh(lab, registry, manager, socket)
    match kind:
        case "services":
            services = inspect.services(mesh)
            rows: list[tuple[Any, ...]] = [(s.name, s.payload, len(s.matches)) for s in services]
            _show(as_json, [_plain(s) for s in services], ("SERVICE", "PAYLOAD", "MATCHES"), rows)
        case "endpoints" | "forwarders":
            found = inspect.endpoints(mesh) if kind == "endpoints" else inspect.forwarders(mesh)
            rows = [
                (e.name, " ".join(e.network_service_names), e.url, _time(e.expiration_time)) for e in found
            ]
            _show(as_json, [_plain(e) for e in found], ("NAME", "SERVICES", "URL", "EXPIRES"), rows)
        case "connections":
            seen = inspect.connections(mesh)
            rows = [row for one in seen for row in _connection_rows(one)]
            columns = (
                "ID",
                "SERVICE",
                "ENDPOINT",
                "STATE",
                "HOP",
                "SIDE",
                "RX PKTS",
                "TX PKTS",
                "RX B",
                "TX B",
                "DROPS",
            )
            _show(as_json, [_connection(one) for one in seen], columns, rows)


def _show(as_json: bool, values: list[Any], columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    if as_json:
        emit_json(values)
    else:
        table(columns, rows)


def _connection_rows(seen: Seen) -> list[tuple[Any, ...]]:
    connection = seen.connection
    segments = connection.route.segments
    own = segments[0].id if segments else connection.id
    head = (own, connection.network_service, connection.network_service_endpoint_name, connection.state.name)
    rows: list[tuple[Any, ...]] = [
        (
            c["hop"],
            f"{c['side']} {c['interface']}".strip(),
            *(
                c[key] if c[key] is not None else "-"
                for key in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")
            ),
            c["drops"] if c["drops"] is not None else "-",
        )
        for c in seen.counters()
    ] or [("-",) * 7]
    return [((*head, *row) if at == 0 else ("", "", "", "", *row)) for at, row in enumerate(rows)]


def _connection(seen: Seen) -> dict[str, Any]:
    connection = seen.connection
    return {
        "node": seen.node,
        "id": connection.route.segments[0].id if connection.route.segments else connection.id,
        "service": connection.network_service,
        "endpoint": connection.network_service_endpoint_name,
        "payload": connection.payload,
        "state": connection.state.name,
        "src_ip_addrs": list(connection.ip.src_ip_addrs),
        "dst_ip_addrs": list(connection.ip.dst_ip_addrs),
        "mtu": connection.ctx.mtu,
        "path": [{"name": s.name, "id": s.id, "metrics": dict(s.metrics)} for s in connection.route.segments],
        "counters": seen.counters(),
    }


def _plain(value: Any) -> dict[str, Any]:
    return {key: field for key, field in asdict(value).items() if "unknown" not in key}


def _time(nanoseconds: int | None) -> str:
    return "-" if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%H:%M:%S")
