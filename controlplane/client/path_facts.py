"""A connection as people want to see it: interface, addresses, MTU, and the hops with their SPIFFE IDs."""

from nsm.model.connection import Connection
from nsm.model.identity import TokenVerifier
from nsm.model.mechanism import INTERFACE_NAME


def hops(connection: Connection, verifier: TokenVerifier) -> list[dict[str, object]]:
    """Name, id, SPIFFE ID and metrics of each segment; the client's policies have checked the chain of tokens."""
    found: list[dict[str, object]] = []
    for segment in connection.route.segments:
        claims = verifier.claims(segment.token)
        identity = claims.sub if claims is not None else ""
        found.append(
            {"name": segment.name, "id": segment.id, "spiffe_id": identity, "metrics": dict(segment.metrics)}
        )
    return found


def facts(connection: Connection, verifier: TokenVerifier) -> dict[str, object]:
    """What is logged of a connection that is up; ``mtu`` 0 = not set."""
    mechanism = connection.mechanism
    return {
        "service": connection.network_service,
        "endpoint": connection.network_service_endpoint_name,
        "interface": mechanism.get(INTERFACE_NAME) if mechanism else "",
        "mechanism": f"{mechanism.cls} {mechanism.type}" if mechanism else "",
        "payload": connection.payload,
        "src_ip_addrs": list(connection.ip.src_ip_addrs),
        "dst_ip_addrs": list(connection.ip.dst_ip_addrs),
        "mtu": connection.ctx.mtu,
        "path": hops(connection, verifier),
    }
