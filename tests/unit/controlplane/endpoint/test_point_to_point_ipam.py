"""Who gets which addresses, for how long, and what happens when there are none (reference §3.14)."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest

from controlplane.endpoint.ipam import Lease, Pair, PointToPointIpam
from controlplane.endpoint.prefixes import Network
from nsm.model.context import IpContext, Route
from nsm.model.errors import Code, NsmError


def ipam(*groups: str, strict: bool = False) -> PointToPointIpam:
    return PointToPointIpam(
        [[ip_network(prefix) for prefix in group.split()] for group in groups], strict=strict
    )


def group(*prefixes: str) -> list[Network]:
    return [ip_network(prefix) for prefix in prefixes]


def test_the_endpoint_gets_the_lower_address_and_each_end_a_route_to_the_other() -> None:
    context = ipam("172.16.0.0/24").request("a", IpContext())
    assert context.dst_ip_addrs == ("172.16.0.0/32",)
    assert context.src_ip_addrs == ("172.16.0.1/32",)
    assert context.src_routes == (Route("172.16.0.0/32"),)
    assert context.dst_routes == (Route("172.16.0.1/32"),)


def test_the_next_connection_gets_the_next_pair() -> None:
    pool = ipam("172.16.0.0/24")
    pool.request("a", IpContext())
    assert pool.request("b", IpContext()).dst_ip_addrs == ("172.16.0.2/32",)


def test_each_group_gives_one_pair_of_its_own_family() -> None:
    context = ipam("10.0.0.0/24", "fd00::/64").request("a", IpContext())
    assert context.dst_ip_addrs == ("10.0.0.0/32", "fd00::/128")
    assert context.src_ip_addrs == ("10.0.0.1/32", "fd00::1/128")
    assert context.src_routes == (Route("10.0.0.0/32"), Route("fd00::/128"))


def test_the_next_prefix_of_a_group_is_used_when_the_first_is_full() -> None:
    pool = ipam("10.0.0.0/31 10.1.0.0/31")
    assert pool.request("a", IpContext()).dst_ip_addrs == ("10.0.0.0/32",)
    assert pool.request("b", IpContext()).dst_ip_addrs == ("10.1.0.0/32",)


def test_groups_that_overlap_share_no_address() -> None:
    context = ipam("10.0.0.0/30", "10.0.0.0/29").request("a", IpContext())
    assert len({*context.dst_ip_addrs, *context.src_ip_addrs}) == 4


def test_a_refresh_changes_nothing() -> None:
    pool = ipam("10.0.0.0/24", "fd00::/64")
    first = pool.request("a", IpContext(excluded_prefixes=("10.0.0.0/31",)))
    assert pool.request("a", first) == first


def test_an_address_lost_on_the_way_is_put_in_again() -> None:
    pool = ipam("10.0.0.0/24")
    first = pool.request("a", IpContext())
    assert pool.request("a", IpContext()) == first


def test_excluded_prefixes_are_skipped() -> None:
    context = ipam("10.0.0.0/24").request("a", IpContext(excluded_prefixes=("10.0.0.0/30", "10.0.0.5/32")))
    assert (context.dst_ip_addrs, context.src_ip_addrs) == (("10.0.0.4/32",), ("10.0.0.6/32",))


def test_an_address_that_became_excluded_is_replaced_with_its_routes() -> None:
    pool = ipam("10.0.0.0/24")
    first = pool.request("a", IpContext(src_routes=(Route("192.168.0.0/16", "10.0.0.0"),)))
    second = pool.request(
        "a", IpContext(first.src_ip_addrs, first.dst_ip_addrs, excluded_prefixes=("10.0.0.1/32",))
    )
    assert second.dst_ip_addrs == ("10.0.0.0/32",)
    assert second.src_ip_addrs == ("10.0.0.2/32",)
    assert second.dst_routes == (Route("10.0.0.2/32"),)
    pool.confirm("a")
    assert pool.request("b", IpContext()).dst_ip_addrs == ("10.0.0.1/32",)


def test_routes_of_others_survive_a_replacement() -> None:
    pool = ipam("10.0.0.0/24")
    other = Route("192.168.0.0/16", "10.0.0.0")
    first = pool.request("a", IpContext(src_routes=(other,)))
    assert first.src_routes == (other, Route("10.0.0.0/32"))


def test_after_a_restart_a_refresh_recovers_its_addresses() -> None:
    before = ipam("10.0.0.0/24", "fd00::/64")
    before.request("a", IpContext())
    live = before.request("b", IpContext())
    after = ipam("10.0.0.0/24", "fd00::/64")
    assert after.request("b", live) == live
    assert after.request("c", IpContext()).dst_ip_addrs == ("10.0.0.0/32", "fd00::/128")
    assert after.request("d", IpContext()).dst_ip_addrs == ("10.0.0.4/32", "fd00::4/128")


def test_an_address_taken_by_another_meanwhile_is_replaced_and_not_shared() -> None:
    live = ipam("10.0.0.0/24").request("b", IpContext())
    after = ipam("10.0.0.0/24")
    newcomer = after.request("new", IpContext())
    healed = after.request("b", live)
    assert not {*healed.src_ip_addrs, *healed.dst_ip_addrs} & {*newcomer.src_ip_addrs, *newcomer.dst_ip_addrs}
    assert healed.src_routes == (Route("10.0.0.2/32"),)


def test_a_client_cannot_claim_the_address_of_another() -> None:
    pool = ipam("10.0.0.0/24")
    victim = pool.request("a", IpContext())
    context = pool.request(
        "b", IpContext(src_ip_addrs=victim.src_ip_addrs, dst_routes=(Route("10.0.0.1/32"),))
    )
    assert context.src_ip_addrs == ("10.0.0.3/32",)
    assert context.dst_routes == (Route("10.0.0.3/32"),)


def test_the_same_address_cannot_stand_at_both_ends() -> None:
    pool = ipam("10.0.0.0/24")
    first = pool.request("a", IpContext())
    swapped = pool.request("a", IpContext(first.dst_ip_addrs, first.src_ip_addrs))
    assert swapped.src_ip_addrs == first.src_ip_addrs
    assert swapped.dst_ip_addrs == first.dst_ip_addrs


def test_a_further_address_of_ours_that_is_free_stays_reserved() -> None:
    pool = ipam("10.0.0.0/24")
    pool.request("a", IpContext(src_ip_addrs=("10.0.0.2/32",)))
    assert pool.request("b", IpContext()).dst_ip_addrs == ("10.0.0.3/32",)
    pool.release("a")
    assert pool.request("c", IpContext()).src_ip_addrs == ("10.0.0.1/32",)


def test_polite_keeps_addresses_of_others_and_strict_removes_them_with_their_routes() -> None:
    foreign = IpContext(("192.168.0.1/32",), ("192.168.0.2/32",), dst_routes=(Route("192.168.0.1/32"),))
    polite = ipam("10.0.0.0/24").request("a", foreign)
    assert polite.src_ip_addrs == ("192.168.0.1/32", "10.0.0.1/32")
    assert polite.dst_routes == (Route("192.168.0.1/32"), Route("10.0.0.1/32"))
    strict = ipam("10.0.0.0/24", strict=True).request("a", foreign)
    assert strict.src_ip_addrs == ("10.0.0.1/32",)
    assert strict.dst_ip_addrs == ("10.0.0.0/32",)
    assert strict.dst_routes == (Route("10.0.0.1/32"),)


def test_strict_keeps_the_addresses_of_every_group() -> None:
    pool = ipam("10.0.0.0/24", "fd00::/64", strict=True)
    first = pool.request("a", IpContext())
    assert pool.request("a", first) == first


def test_an_exhausted_pool_is_named_and_nothing_is_taken() -> None:
    pool = ipam("10.0.0.0/24", "10.9.0.0/31")
    pool.request("a", IpContext())
    with pytest.raises(NsmError, match=r"10\.9\.0\.0/31") as caught:
        pool.request("b", IpContext())
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert "b" not in pool.leases
    pool.release("a")
    assert pool.request("c", IpContext()).dst_ip_addrs == ("10.0.0.0/32", "10.9.0.0/32")


def test_a_refresh_that_cannot_be_served_keeps_the_old_lease() -> None:
    pool = ipam("10.0.0.0/31")
    first = pool.request("a", IpContext())
    with pytest.raises(NsmError, match="no pair of free"):
        pool.request("a", IpContext(excluded_prefixes=("10.0.0.0/31",)))
    assert pool.request("a", IpContext()) == first
    with pytest.raises(NsmError, match="no pair of free"):
        pool.request("b", IpContext())


@pytest.mark.parametrize(
    ("context", "field"),
    [
        (IpContext(excluded_prefixes=("10.0.0.0/33",)), "excluded_prefixes"),
        (IpContext(src_ip_addrs=("here",)), "src_ip_addrs"),
        (IpContext(dst_ip_addrs=("",)), "dst_ip_addrs"),
    ],
)
def test_malformed_input_names_its_field_and_takes_nothing(context: IpContext, field: str) -> None:
    pool = ipam("10.0.0.0/24")
    with pytest.raises(NsmError, match="expected") as caught:
        pool.request("a", context)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.field == f"connection.context.ip_context.{field}"
    assert not pool.leases


def test_rolling_back_a_new_connection_frees_its_addresses() -> None:
    pool = ipam("10.0.0.0/31")
    pool.request("a", IpContext())
    pool.rollback("a")
    assert pool.request("b", IpContext()).dst_ip_addrs == ("10.0.0.0/32",)


def test_rolling_back_a_refresh_gives_the_replaced_addresses_back() -> None:
    pool = ipam("10.0.0.0/24")
    first = pool.request("a", IpContext())
    pool.confirm("a")
    pool.request("a", IpContext(excluded_prefixes=("10.0.0.0/31",)))
    assert pool.request("b", IpContext()).dst_ip_addrs == ("10.0.0.4/32",)
    pool.rollback("a")
    assert pool.request("a", IpContext()) == first
    assert pool.request("c", IpContext()).dst_ip_addrs == ("10.0.0.2/32",)


@pytest.mark.parametrize("give_up", [PointToPointIpam.rollback, PointToPointIpam.release])
def test_an_answer_that_was_given_up_is_not_given_again(
    give_up: Callable[[PointToPointIpam, str], None],
) -> None:
    pool = ipam("10.0.0.0/24")
    first = pool.request("a", IpContext())
    give_up(pool, "a")
    assert pool.request("b", IpContext()) == first
    assert pool.request("a", first).dst_ip_addrs == ("10.0.0.2/32",)


def test_rollback_and_release_of_what_is_settled_or_unknown_do_nothing() -> None:
    pool = ipam("10.0.0.0/24")
    first = pool.request("a", IpContext())
    pool.confirm("a")
    pool.rollback("a")
    pool.release("unknown")
    assert pool.request("a", IpContext()) == first


def test_a_stored_lease_is_installed_only_where_it_still_fits() -> None:
    lease = Lease((Pair(ip_address("10.0.0.1"), ip_address("10.0.0.0")),), (ip_address("10.0.0.9"),))
    pool = ipam("10.0.0.0/24")
    assert pool.install("a", lease)
    assert pool.request("b", IpContext()).dst_ip_addrs == ("10.0.0.2/32",)
    assert not pool.install("a", lease)
    assert not pool.install("c", lease)
    assert not ipam("10.5.0.0/24").install("a", lease)
    assert not ipam("10.0.0.0/24", "fd00::/64").install("a", lease)
    assert not ipam("10.0.0.0/24").install(
        "x", Lease((Pair(ip_address("10.0.0.1"), ip_address("10.0.0.1")),))
    )


def test_without_groups_a_request_gets_no_address() -> None:
    assert ipam().request("a", IpContext()) == IpContext()


def test_an_empty_group_is_exhausted() -> None:
    with pytest.raises(NsmError, match="an empty group"):
        PointToPointIpam([group()]).request("a", IpContext())
