"""What the forwarder checks and derives for every Request and refresh."""

from pytest_benchmark.fixture import BenchmarkFixture

from forwarder_vpp.dataplane.contract.intent import Intent, NetnsId
from forwarder_vpp.mechanisms.kernel import client_end, endpoint_end
from forwarder_vpp.request.claims import claims_of
from forwarder_vpp.request.validation import check_connection
from nsm.model import addresses
from perf.micro import samples

NETNS = NetnsId(4, 4026531840, 1)


def derive() -> Intent:
    """Check the connection, derive both kernel ends and what they claim."""
    connection = samples.connection()
    check_connection(connection)
    intent = Intent(
        id=connection.id,
        owner="owner",
        payload="IP",
        mtu=1500,
        client=client_end(NETNS, "nsm-1", connection.ctx),
        endpoint=endpoint_end(NETNS, "nsm-2", connection.ctx),
        expires=0.0,
    )
    assert tuple(claims_of(intent))
    return intent


def test_derive_a_new_connection(benchmark: BenchmarkFixture) -> None:
    def with_new_addresses() -> Intent:
        for parse in (addresses.ip_address, addresses.ip_interface, addresses.ip_network):
            parse.cache_clear()
        return derive()

    benchmark(with_new_addresses)


def test_derive_a_refreshed_connection(benchmark: BenchmarkFixture) -> None:
    assert benchmark(derive) == derive()
