"""DNS configurations are appended once and nothing of other hops is lost."""

from controlplane.endpoint.dns import with_dns
from nsm.model.context import ConnectionContext, DnsConfig, DnsContext

OTHER = DnsConfig(("10.0.0.9",), ("other.org",))
OURS = DnsConfig(("10.0.0.1", "10.0.0.2"), ("x.org",))


def test_configurations_follow_those_of_other_hops() -> None:
    context = with_dns(ConnectionContext(dns_context=DnsContext((OTHER,)), mtu=1400), [OURS])
    assert context.dns_context == DnsContext((OTHER, OURS))
    assert context.mtu == 1400


def test_a_refresh_adds_nothing() -> None:
    once = with_dns(ConnectionContext(), [OURS, OURS])
    assert once.dns_context == DnsContext((OURS,))
    assert with_dns(once, [OURS]) == once


def test_the_order_of_servers_makes_another_configuration() -> None:
    other = DnsConfig(("10.0.0.2", "10.0.0.1"), ("x.org",))
    context = with_dns(ConnectionContext(), [OURS, other])
    assert context.dns_context == DnsContext((OURS, other))


def test_no_configuration_gives_an_empty_context() -> None:
    assert with_dns(ConnectionContext(), []).dns_context == DnsContext()
