import pytest

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.mechanisms.kernel import check_name, client_end, default_name, endpoint_end
from nsm.model.context import ConnectionContext, EthernetContext, IpContext, PolicyRoute, Route
from nsm.model.errors import NsmError

NETNS = NetnsId(1, 2, 3)


def context(**facts: object) -> ConnectionContext:
    ip = IpContext(src_ip_addrs=("172.16.0.1/32",), dst_ip_addrs=("172.16.0.0/32",))
    return ConnectionContext(ip_context=IpContext(**{**_facts(ip), **facts}))  # type: ignore[arg-type]


def _facts(ip: IpContext) -> dict[str, object]:
    return {"src_ip_addrs": ip.src_ip_addrs, "dst_ip_addrs": ip.dst_ip_addrs}


def test_each_end_has_its_addresses_and_a_route_to_the_other() -> None:
    client, endpoint = (make(NETNS, "nsm-1", context()) for make in (client_end, endpoint_end))
    assert (client.addresses, client.routes) == (("172.16.0.1/32",), (Route("172.16.0.0/32"),))
    assert (endpoint.addresses, endpoint.routes) == (("172.16.0.0/32",), (Route("172.16.0.1/32"),))


def test_next_hops_are_filled_unless_on_link() -> None:
    routes = (
        Route("172.16.0.0/32"),
        Route("10.0.0.0/8"),
        Route("192.0.2.0/24", "172.16.0.9"),
        Route("fd00::/8"),
    )
    client = client_end(NETNS, "nsm-1", context(src_routes=routes))
    assert client.routes == (
        Route("172.16.0.0/32"),
        Route("10.0.0.0/8", "172.16.0.0"),
        Route("192.0.2.0/24", "172.16.0.9"),
        Route("fd00::/8"),
    )


def test_an_address_in_an_own_prefix_needs_no_route() -> None:
    client = client_end(NETNS, "n", context(src_ip_addrs=("172.16.0.1/24",)))
    assert client.routes == ()


def test_policies_are_the_clients_alone() -> None:
    policies = (
        PolicyRoute("10.9.0.1/32", "tcp", "80"),
        PolicyRoute("10.9.0.2/32", routes=(Route("10.0.0.0/8"),)),
    )
    client = client_end(NETNS, "n", context(policies=policies))
    assert [rule.routes for rule in client.rules] == [
        (Route("0.0.0.0/0", "172.16.0.0"),),
        (Route("10.0.0.0/8", "172.16.0.0"),),
    ]
    assert endpoint_end(NETNS, "n", context(policies=policies)).rules == ()


def test_macs_go_to_their_ends() -> None:
    both = ConnectionContext(ethernet_context=EthernetContext("02:00:00:00:00:AA", "02:00:00:00:00:bb"))
    assert client_end(NETNS, "n", both).mac == "02:00:00:00:00:aa"
    assert endpoint_end(NETNS, "n", both).mac == "02:00:00:00:00:bb"


@pytest.mark.parametrize("name", ["", "x" * 16, "a/b", "a:b", "a b", ".", "..", "a\n", "ü" * 8, "eth%d"])
def test_names_the_kernel_refuses_are_refused(name: str) -> None:
    with pytest.raises(NsmError) as caught:
        check_name(name)
    assert caught.value.field.endswith("parameters.name")


@pytest.mark.parametrize("service", ["icmp-responder", "s", "a/b:c d", "überdienst"])
def test_default_names_have_upstreams_form(service: str) -> None:
    name = default_name(service, "abcdefghijklmnop")
    check_name(name)
    assert len(name) == 15
