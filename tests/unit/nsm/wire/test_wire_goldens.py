"""Messages written by hand from the protobuf encoding rules (tag = number << 3 | wire type), byte for byte."""

from typing import Any

import pytest

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
    State,
)
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
from nsm.model.endpoint import (
    Destination,
    EndpointQuery,
    EndpointResponse,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.model.ipam import PrefixRequest, PrefixResponse, PrefixType
from nsm.model.mechanism import Mechanism
from nsm.model.path import Path, PathSegment
from nsm.wire import codec
from nsm.wire.codec import Codec

Golden = tuple[Codec[Any, Any], str, object]


def with_context(hexadecimal: str, context: ConnectionContext) -> Golden:
    """A connection that has a context and nothing else."""
    return (codec.CONNECTION, hexadecimal, Connection(context=context))


def with_ip(hexadecimal: str, ip: IpContext) -> Golden:
    """A connection that has an IP context and nothing else."""
    return with_context(hexadecimal, ConnectionContext(ip_context=ip))


CONNECTIONS: dict[str, Golden] = {
    "every field of a connection": (
        codec.CONNECTION,
        "0a02 6331"  # 1 id "c1"
        "1202 6e73"  # 2 network_service "ns"
        "1a1e 0a05 4c4f43414c 1206 4b45524e454c"  # 3 mechanism: LOCAL KERNEL
        "     1a0d 0a04 6e616d65 1205 6e736d2d31"  # parameters name=nsm-1
        "2214 0a0f 0a0b 31302e302e302e312f3332 1801"  # 4 context: ip: src_ip_addrs 10.0.0.1/32, required
        "     28dc0b"  # MTU 1500
        "2a06 0a0161 120162"  # 5 labels a=b
        "3217 0801"  # 6 path: index 1
        "     1213 0a016e 120169 1a0174 2208 0880e2cfaa06 1005"  # segment n i t, expires 1700000000 s 5 ns
        "3a01 65"  # 7 network_service_endpoint_name "e"
        "4202 4950"  # 8 payload "IP"
        "4803",  # 9 state RESELECT_REQUESTED
        Connection(
            id="c1",
            network_service="ns",
            mechanism=Mechanism("LOCAL", "KERNEL", {"name": "nsm-1"}),
            context=ConnectionContext(
                ip_context=IpContext(src_ip_addrs=("10.0.0.1/32",), src_ip_required=True), mtu=1500
            ),
            labels={"a": "b"},
            path=Path(1, (PathSegment("n", "i", "t", 1_700_000_000_000_000_005),)),
            network_service_endpoint_name="e",
            payload="IP",
            state=State.RESELECT_REQUESTED,
        ),
    ),
    "nothing set": (codec.CONNECTION, "", Connection()),
    "sub-messages that are set but empty": (
        codec.CONNECTION,
        "1a00 2206 0a00 1200 1a00 3200",
        Connection(
            mechanism=Mechanism("", ""),
            context=ConnectionContext(IpContext(), DnsContext(), EthernetContext()),
            path=Path(),
        ),
    ),
    "a segment that expired in 1970, and metrics": (
        codec.CONNECTION,
        "320c 120a 2200 2a06 0a016d 120131",
        Connection(path=Path(0, (PathSegment(expires=0, metrics={"m": "1"}),))),
    ),
    "a segment that expired one nanosecond before 1970": (
        codec.CONNECTION,
        "3215 1213 2211 08ffffffffffffffffff01 10ff93ebdc03",  # -1 s + 999999999 ns
        Connection(path=Path(0, (PathSegment(expires=-1),))),
    ),
    "dst addresses": with_ip("2207 0a05 120164 2001", IpContext(dst_ip_addrs=("d",), dst_ip_required=True)),
    "routes": with_ip(
        "220f 0a0d 2a06 0a0170 120167 3203 0a0171",
        IpContext(src_routes=(Route("p", "g"),), dst_routes=(Route("q"),)),
    ),
    "excluded prefixes, neighbours, extra prefixes": with_ip(
        "2210 0a0e 3a0178 4206 0a0169 12016d 52017a",
        IpContext(excluded_prefixes=("x",), ip_neighbors=(IpNeighbor("i", "m"),), extra_prefixes=("z",)),
    ),
    "extra prefix requests with IPv4, IPv6 and no family": with_ip(
        "2214 0a12 4a08 0a00 1018 1801 2002 4a04 0a02 0801 4a00",
        IpContext(
            extra_prefix_request=(
                ExtraPrefixRequest(Family.IPV4, 24, 1, 2),
                ExtraPrefixRequest(Family.IPV6),
                ExtraPrefixRequest(),
            )
        ),
    ),
    "a policy route": with_ip(
        "221b 0a19 5a17 0a0166 120136 1a023830 2203312d39 2a06 0a0170 120167",
        IpContext(policies=(PolicyRoute("f", "6", "80", "1-9", (Route("p", "g"),)),)),
    ),
    "DNS": with_context(
        "220a 1208 0a06 0a0173 12016c",
        ConnectionContext(dns_context=DnsContext((DnsConfig(("s",), ("l",)),))),
    ),
    "Ethernet with a negative tag": with_context(
        "2213 1a11 0a0153 120144 18ffffffffffffffffff01",
        ConnectionContext(ethernet_context=EthernetContext("S", "D", -1)),
    ),
    "extra context": with_context("2208 2206 0a0161 120162", ConnectionContext(extra_context={"a": "b"})),
}
OTHERS: dict[str, Golden] = {
    "a request": (
        codec.NETWORK_SERVICE_REQUEST,
        "0a03 0a0163 1203 0a014c 1203 120154",
        NetworkServiceRequest(Connection(id="c"), (Mechanism("L", ""), Mechanism("", "T"))),
    ),
    "a deletion event": (
        codec.CONNECTION_EVENT,
        "0802 1205 0a016b 1200",
        ConnectionEvent(EventType.DELETE, {"k": Connection()}),
    ),
    "a monitor selector": (
        codec.MONITOR_SCOPE_SELECTOR,
        "0a03 0a0161 120162 120163",
        MonitorScopeSelector((PathSegment("a"),), ("b", "c")),
    ),
    "a service": (
        codec.NETWORK_SERVICE,
        "0a016e 12024950 1a1e"
        "  0a06 0a0161 120162"  # source_selector a=b
        "  120a 0a06 0a0163 120164 1007"  # routes: destination_selector c=d, weight 7
        "  1801"  # fallthrough
        "  2206 0a04 0a00 1200"  # metadata: labels with an empty name and value
        "220170",  # path_ids "p"
        NetworkService(
            "n", "IP", (Match({"a": "b"}, (Destination({"c": "d"}, 7),), True, {"": ""}),), ("p",)
        ),
    ),
    "a match whose metadata is set but empty": (
        codec.NETWORK_SERVICE,
        "1a02 2200",
        NetworkService(matches=(Match(metadata={}),)),
    ),
    "an endpoint": (
        codec.NETWORK_SERVICE_ENDPOINT,
        "0a0165 12026e73"
        "1a0e 0a026e73 1208 0a06 0a0161 120162"  # network_service_labels ns: a=b
        "2203 746370"  # url "tcp"
        "2a11 08ffffffffffffffffff01 10ff93ebdc03"  # expiration_time
        "3200"  # initial_registration_time 1970-01-01
        "3a0170",
        NetworkServiceEndpoint("e", ("ns",), {"ns": {"a": "b"}}, "tcp", -1, 0, ("p",)),
    ),
    "a service query": (codec.NETWORK_SERVICE_QUERY, "0a00 1001", NetworkServiceQuery(watch=True)),
    "a service response": (
        codec.NETWORK_SERVICE_RESPONSE,
        "0a03 0a016e 1001",
        NetworkServiceResponse(NetworkService("n"), True),
    ),
    "an endpoint query": (
        codec.ENDPOINT_QUERY,
        "0a03 0a0165 1001",
        EndpointQuery(NetworkServiceEndpoint("e"), True),
    ),
    "an endpoint response": (codec.ENDPOINT_RESPONSE, "0a00 1001", EndpointResponse(deleted=True)),
    "a prefix request": (
        codec.PREFIX_REQUEST,
        "0801 120170 1a0178 1a0179",
        PrefixRequest(PrefixType.ALLOCATE, "p", ("x", "y")),
    ),
    "a prefix response, which has no field 1": (
        codec.PREFIX_RESPONSE,
        "120170 1a0178",
        PrefixResponse("p", ("x",)),
    ),
}
GOLDENS = CONNECTIONS | OTHERS


@pytest.mark.parametrize("name", GOLDENS)
def test_the_bytes_read_as_the_model(name: str) -> None:
    codec_, hexadecimal, model = GOLDENS[name]
    assert codec_.decode(bytes.fromhex(hexadecimal)) == model


@pytest.mark.parametrize("name", GOLDENS)
def test_the_model_is_sent_as_the_bytes(name: str) -> None:
    codec_, hexadecimal, model = GOLDENS[name]
    assert codec_.encode(model).hex() == hexadecimal.replace(" ", "")


def test_a_map_entry_without_key_and_value_is_an_entry_of_two_empty_texts() -> None:
    assert codec.CONNECTION.decode(bytes.fromhex("2a00")) == Connection(labels={"": ""})


def test_the_last_of_a_repeated_single_field_wins_and_sub_messages_merge() -> None:
    connection = codec.CONNECTION.decode(bytes.fromhex("0a0161 0a0162 3202 0801 3202 1200"))
    assert connection == Connection(id="b", path=Path(1, (PathSegment(),)))
