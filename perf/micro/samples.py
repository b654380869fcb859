"""What the pure rooms are measured on: a connection as it looks on its way back across two nodes."""

from dataclasses import replace
from functools import cache

from nsm.identity.tokens import PathTokens
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext, Route
from nsm.model.mechanism import INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment
from tests.fakes.identity import FakeAuthority, FakeIdentity

HOPS = ("client", "manager-1", "forwarder-1", "manager-2", "forwarder-2", "endpoint")
LIFETIME = 600.0


@cache
def identities() -> tuple[FakeIdentity, ...]:
    """An identity for each hop."""
    authority = FakeAuthority()
    return tuple(authority.identity(name) for name in HOPS)


@cache
def connection() -> Connection:
    """Six hops with real tokens, both address families, on the last but one hop's segment."""
    hops = identities()
    segments = []
    for at, identity in enumerate(hops):
        audience = hops[min(at + 1, len(hops) - 1)].spiffe_id
        token = PathTokens(identity, max_lifetime=LIFETIME).token(audience)
        segments.append(PathSegment(name=HOPS[at], id=f"id-{at}", token=token.text, expires=token.expires))
    context = IpContext(
        src_ip_addrs=("172.16.0.1/32", "fd00:172:16::1/128"),
        dst_ip_addrs=("172.16.0.0/32", "fd00:172:16::/128"),
        src_routes=(Route("172.16.0.0/32"), Route("fd00:172:16::/128")),
        dst_routes=(Route("172.16.0.1/32"), Route("fd00:172:16::1/128")),
        excluded_prefixes=("10.96.0.0/12", "10.244.0.0/16"),
    )
    return Connection(
        id="id-4",
        network_service="service",
        mechanism=Mechanism(LOCAL, KERNEL, {INTERFACE_NAME: "nsm-1", "inodeURL": "inode://4/4026531840"}),
        context=ConnectionContext(ip_context=context, mtu=1420),
        labels={"nodeName": "n1"},
        path=Path(4, tuple(segments)),
        network_service_endpoint_name="endpoint-1",
        payload="IP",
    )


def arriving() -> Connection:
    """The same as a hop receives it: on the segment before."""
    whole = connection()
    return replace(whole, id="id-3", path=replace(whole.route, index=3))
