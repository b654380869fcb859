"""Our .proto files against the field table of reference §1.2-1.6, both ways: nothing missing, nothing extra."""

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from nsm.wire.methods import FILES

PACKAGES = {
    "networkservice.proto": "networkservice",
    "connection.proto": "connection",
    "connectioncontext.proto": "connectioncontext",
    "registry.proto": "registry",
    "ipam.proto": "ipam",
}
IMPORTS = {
    "networkservice.proto": {"connection.proto", "google/protobuf/empty.proto"},
    "connection.proto": {"connectioncontext.proto", "google/protobuf/timestamp.proto"},
    "connectioncontext.proto": set(),
    "registry.proto": {"google/protobuf/empty.proto", "google/protobuf/timestamp.proto"},
    "ipam.proto": set(),
}
# Number, name, type; one block per message.
FIELDS = """
networkservice.NetworkServiceRequest
1 connection connection.Connection
2 mechanism_preferences repeated connection.Mechanism

connection.Mechanism
1 cls string
2 type string
3 parameters map<string,string>

connection.PathSegment
1 name string
2 id string
3 token string
4 expires google.protobuf.Timestamp
5 metrics map<string,string>

connection.Path
1 index uint32
2 path_segments repeated connection.PathSegment

connection.Connection
1 id string
2 network_service string
3 mechanism connection.Mechanism
4 context connectioncontext.ConnectionContext
5 labels map<string,string>
6 path connection.Path
7 network_service_endpoint_name string
8 payload string
9 state connection.State

connection.ConnectionEvent
1 type connection.ConnectionEventType
2 connections map<string,connection.Connection>

connection.MonitorScopeSelector
1 path_segments repeated connection.PathSegment
2 network_services repeated string

connectioncontext.IpNeighbor
1 ip string
2 hardware_address string

connectioncontext.Route
1 prefix string
2 nextHop string

connectioncontext.IpFamily
1 family connectioncontext.IpFamily.Family

connectioncontext.ExtraPrefixRequest
1 addr_family connectioncontext.IpFamily
2 prefix_len uint32
3 required_number uint32
4 requested_number uint32

connectioncontext.PolicyRoute
1 from string
2 proto string
3 dst_port string
4 src_port string
5 routes repeated connectioncontext.Route

connectioncontext.IPContext
1 src_ip_addrs repeated string
2 dst_ip_addrs repeated string
3 src_ip_required bool
4 dst_ip_required bool
5 src_routes repeated connectioncontext.Route
6 dst_routes repeated connectioncontext.Route
7 excluded_prefixes repeated string
8 ip_neighbors repeated connectioncontext.IpNeighbor
9 extra_prefix_request repeated connectioncontext.ExtraPrefixRequest
10 extra_prefixes repeated string
11 policies repeated connectioncontext.PolicyRoute

connectioncontext.DNSConfig
1 dns_server_ips repeated string
2 search_domains repeated string

connectioncontext.DNSContext
1 configs repeated connectioncontext.DNSConfig

connectioncontext.EthernetContext
1 src_mac string
2 dst_mac string
3 vlan_tag int32

connectioncontext.ConnectionContext
1 ip_context connectioncontext.IPContext
2 dns_context connectioncontext.DNSContext
3 ethernet_context connectioncontext.EthernetContext
4 extra_context map<string,string>
5 MTU uint32

registry.NetworkService
1 name string
2 payload string
3 matches repeated registry.Match
4 path_ids repeated string

registry.Match
1 source_selector map<string,string>
2 routes repeated registry.Destination
3 fallthrough bool
4 metadata registry.Metadata

registry.Metadata
1 labels map<string,string>

registry.Destination
1 destination_selector map<string,string>
2 weight uint32

registry.NetworkServiceLabels
1 labels map<string,string>

registry.NetworkServiceEndpoint
1 name string
2 network_service_names repeated string
3 network_service_labels map<string,registry.NetworkServiceLabels>
4 url string
5 expiration_time google.protobuf.Timestamp
6 initial_registration_time google.protobuf.Timestamp
7 path_ids repeated string

registry.NetworkServiceQuery
1 network_service registry.NetworkService
2 watch bool

registry.NetworkServiceEndpointQuery
1 network_service_endpoint registry.NetworkServiceEndpoint
2 watch bool

registry.NetworkServiceResponse
1 network_service registry.NetworkService
2 deleted bool

registry.NetworkServiceEndpointResponse
1 network_service_endpoint registry.NetworkServiceEndpoint
2 deleted bool

ipam.PrefixRequest
1 type ipam.Type
2 prefix string
3 exclude_prefixes repeated string

ipam.PrefixResponse
2 prefix string
3 exclude_prefixes repeated string
"""
ENUMS = {
    "connection.State": {"UP": 0, "DOWN": 1, "REFRESH_REQUESTED": 2, "RESELECT_REQUESTED": 3},
    "connection.ConnectionEventType": {"INITIAL_STATE_TRANSFER": 0, "UPDATE": 1, "DELETE": 2},
    "connectioncontext.IpFamily.Family": {"IPV4": 0, "IPV6": 1},
    "ipam.Type": {"UNDEFINED": 0, "ALLOCATE": 1, "DELETE": 2},
}
SCALARS = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_INT32: "int32",
}


def expected_fields() -> dict[str, list[str]]:
    """The table: lines by message name."""
    blocks = [block.splitlines() for block in FIELDS.strip().split("\n\n")]
    return {name: lines for name, *lines in blocks}


def type_of(field: FieldDescriptor) -> str:
    """The type as one writes it in a .proto file, messages and enums by their full name."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return f"map<{type_of(inner.fields_by_name['key'])},{type_of(inner.fields_by_name['value'])}>"
    plural = "repeated " if field.is_repeated else ""
    if inner is not None:
        return plural + inner.full_name
    if field.enum_type is not None:
        return plural + field.enum_type.full_name
    return plural + SCALARS[field.type]


def all_messages() -> dict[str, Descriptor]:
    """Every message of our files, nested ones too, without the entry types of maps."""
    found: dict[str, Descriptor] = {}
    waiting = [message for file in FILES for message in file.message_types_by_name.values()]
    while waiting:
        message = waiting.pop()
        waiting.extend(message.nested_types)
        if not message.GetOptions().map_entry:
            found[message.full_name] = message
    return found


def all_enums() -> dict[str, EnumDescriptor]:
    top = [enum for file in FILES for enum in file.enum_types_by_name.values()]
    nested = [enum for message in all_messages().values() for enum in message.enum_types]
    return {enum.full_name: enum for enum in [*top, *nested]}


def test_the_files_have_their_bare_names_packages_and_imports() -> None:
    assert {file.name: file.package for file in FILES} == PACKAGES
    assert {file.name: {d.name for d in file.dependencies} for file in FILES} == IMPORTS


def test_there_are_exactly_the_messages_of_the_table() -> None:
    assert set(all_messages()) == set(expected_fields())


@pytest.mark.parametrize("message", expected_fields())
def test_a_message_has_exactly_the_fields_of_the_table(message: str) -> None:
    fields = sorted(all_messages()[message].fields, key=lambda field: field.number)
    assert [f"{f.number} {f.name} {type_of(f)}" for f in fields] == expected_fields()[message]


@pytest.mark.parametrize("message", expected_fields())
def test_no_message_uses_oneof_or_optional_or_extensions(message: str) -> None:
    descriptor = all_messages()[message]
    assert list(descriptor.oneofs) == []  # `optional` shows as a oneof of one
    assert list(descriptor.extensions) == []
    for field in descriptor.fields:  # proto3: only single messages have presence
        assert field.has_presence == (field.message_type is not None and not field.is_repeated)


def test_the_enums_have_exactly_these_names_and_numbers() -> None:
    found = {name: {v.name: v.number for v in enum.values} for name, enum in all_enums().items()}
    assert found == ENUMS
