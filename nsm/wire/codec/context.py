"""``connectioncontext`` messages ↔ ``nsm.model.context`` (reference §1.4); unset sub-messages: ``None``."""

from typing import Final, cast

from nsm.model.context import (
    ConnectionContext,
    DnsConfig,
    DnsContext,
    EthernetContext,
    ExtraPrefixRequest,
    Family,
    IpContext,
    IpNeighbor,
    PolicyRoute,
    Route,
)
from nsm.wire.codec.base import open_enum, put_texts, put_unknown, texts, unknown_of
from nsm.wire.generated import connectioncontext_pb2 as pb

FAMILIES: Final = {int(member): member for member in Family}


def read_context(message: pb.ConnectionContext) -> ConnectionContext:
    """All of a connection's context."""
    has_ethernet = message.HasField("ethernet_context")
    return ConnectionContext(
        ip_context=_read_ip(message.ip_context) if message.HasField("ip_context") else None,
        dns_context=_read_dns(message.dns_context) if message.HasField("dns_context") else None,
        ethernet_context=_read_ethernet(message.ethernet_context) if has_ethernet else None,
        extra_context=texts(message.extra_context),
        mtu=message.MTU,
        unknown=unknown_of(message),
    )


def fill_context(message: pb.ConnectionContext, model: ConnectionContext) -> None:
    """All of a connection's context; an empty sub-message is sent, ``None`` is not."""
    if model.ip_context is not None:
        message.ip_context.SetInParent()
        _fill_ip(message.ip_context, model.ip_context)
    if model.dns_context is not None:
        message.dns_context.SetInParent()
        _fill_dns(message.dns_context, model.dns_context)
    if model.ethernet_context is not None:
        message.ethernet_context.SetInParent()
        _fill_ethernet(message.ethernet_context, model.ethernet_context)
    put_texts(message.extra_context, model.extra_context)
    message.MTU = model.mtu
    put_unknown(message, model.unknown)


def _read_ip(message: pb.IPContext) -> IpContext:
    return IpContext(
        src_ip_addrs=tuple(message.src_ip_addrs),
        dst_ip_addrs=tuple(message.dst_ip_addrs),
        src_ip_required=message.src_ip_required,
        dst_ip_required=message.dst_ip_required,
        src_routes=tuple(map(_read_route, message.src_routes)),
        dst_routes=tuple(map(_read_route, message.dst_routes)),
        excluded_prefixes=tuple(message.excluded_prefixes),
        ip_neighbors=tuple(map(_read_neighbor, message.ip_neighbors)),
        extra_prefix_request=tuple(map(_read_extra_prefix, message.extra_prefix_request)),
        extra_prefixes=tuple(message.extra_prefixes),
        policies=tuple(map(_read_policy, message.policies)),
        unknown=unknown_of(message),
    )


def _fill_ip(message: pb.IPContext, model: IpContext) -> None:
    message.src_ip_addrs.extend(model.src_ip_addrs)
    message.dst_ip_addrs.extend(model.dst_ip_addrs)
    message.src_ip_required = model.src_ip_required
    message.dst_ip_required = model.dst_ip_required
    for route in model.src_routes:
        _fill_route(message.src_routes.add(), route)
    for route in model.dst_routes:
        _fill_route(message.dst_routes.add(), route)
    message.excluded_prefixes.extend(model.excluded_prefixes)
    for neighbor in model.ip_neighbors:
        added = message.ip_neighbors.add(ip=neighbor.ip, hardware_address=neighbor.hardware_address)
        put_unknown(added, neighbor.unknown)
    for request in model.extra_prefix_request:
        _fill_extra_prefix(message.extra_prefix_request.add(), request)
    message.extra_prefixes.extend(model.extra_prefixes)
    for policy in model.policies:
        _fill_policy(message.policies.add(), policy)
    put_unknown(message, model.unknown)


def _read_neighbor(message: pb.IpNeighbor) -> IpNeighbor:
    return IpNeighbor(message.ip, message.hardware_address, unknown_of(message))


def _read_route(message: pb.Route) -> Route:
    return Route(message.prefix, message.nextHop, unknown_of(message))


def _fill_route(message: pb.Route, model: Route) -> None:
    message.prefix = model.prefix
    message.nextHop = model.next_hop
    put_unknown(message, model.unknown)


def _read_extra_prefix(message: pb.ExtraPrefixRequest) -> ExtraPrefixRequest:
    has_family = message.HasField("addr_family")
    return ExtraPrefixRequest(
        addr_family=open_enum(FAMILIES, message.addr_family.family) if has_family else None,
        prefix_len=message.prefix_len,
        required_number=message.required_number,
        requested_number=message.requested_number,
        unknown=unknown_of(message),
        addr_family_unknown=unknown_of(message.addr_family) if has_family else b"",
    )


def _fill_extra_prefix(message: pb.ExtraPrefixRequest, model: ExtraPrefixRequest) -> None:
    if model.addr_family is not None:
        message.addr_family.SetInParent()  # IPV4 is the default and would leave no trace
        message.addr_family.family = cast("pb.IpFamily.Family", model.addr_family)
        put_unknown(message.addr_family, model.addr_family_unknown)
    message.prefix_len = model.prefix_len
    message.required_number = model.required_number
    message.requested_number = model.requested_number
    put_unknown(message, model.unknown)


def _read_policy(message: pb.PolicyRoute) -> PolicyRoute:
    return PolicyRoute(
        source=getattr(message, "from"),  # a Python keyword
        proto=message.proto,
        dst_port=message.dst_port,
        src_port=message.src_port,
        routes=tuple(map(_read_route, message.routes)),
        unknown=unknown_of(message),
    )


def _fill_policy(message: pb.PolicyRoute, model: PolicyRoute) -> None:
    setattr(message, "from", model.source)
    message.proto = model.proto
    message.dst_port = model.dst_port
    message.src_port = model.src_port
    for route in model.routes:
        _fill_route(message.routes.add(), route)
    put_unknown(message, model.unknown)


def _read_dns(message: pb.DNSContext) -> DnsContext:
    return DnsContext(tuple(map(_read_dns_config, message.configs)), unknown_of(message))


def _read_dns_config(message: pb.DNSConfig) -> DnsConfig:
    return DnsConfig(tuple(message.dns_server_ips), tuple(message.search_domains), unknown_of(message))


def _fill_dns(message: pb.DNSContext, model: DnsContext) -> None:
    for config in model.configs:
        added = message.configs.add()
        added.dns_server_ips.extend(config.dns_server_ips)
        added.search_domains.extend(config.search_domains)
        put_unknown(added, config.unknown)
    put_unknown(message, model.unknown)


def _read_ethernet(message: pb.EthernetContext) -> EthernetContext:
    return EthernetContext(message.src_mac, message.dst_mac, message.vlan_tag, unknown_of(message))


def _fill_ethernet(message: pb.EthernetContext, model: EthernetContext) -> None:
    message.src_mac = model.src_mac
    message.dst_mac = model.dst_mac
    message.vlan_tag = model.vlan_tag
    put_unknown(message, model.unknown)
