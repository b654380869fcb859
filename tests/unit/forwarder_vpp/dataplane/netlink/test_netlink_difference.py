"""What is written to bring an interface from one state to another."""

import pytest

from forwarder_vpp.dataplane.netlink import difference, facts, wire
from forwarder_vpp.dataplane.netlink.difference import Carried
from nsm.model.context import IpNeighbor, PolicyRoute, Route

BASE = 0x4E000100
NOTHING = Carried(frozenset(), frozenset(), frozenset(), frozenset(), BASE)


def carried(*addresses: str, routes: tuple[Route, ...] = (), rules: tuple[PolicyRoute, ...] = ()) -> Carried:
    return difference.wanted(addresses, routes, (), rules, BASE)


def texts(steps: object) -> list[str]:
    return [text for _, text in steps]  # type: ignore[attr-defined]


def test_equal_states_need_nothing() -> None:
    state = carried("10.0.0.1/32", routes=(Route("10.0.0.2/32"),))
    assert not list(difference.additions(state, state, 3))
    assert not list(difference.removals(state, state, 3))


def test_addresses_come_before_on_link_routes_before_gateways() -> None:
    wanted = carried("10.0.0.1/32", routes=(Route("0.0.0.0/0", "10.0.0.2"), Route("10.0.0.2/32")))
    assert texts(difference.additions(NOTHING, wanted, 3)) == [
        "address 10.0.0.1/32",
        "route 10.0.0.2/32",
        "route 0.0.0.0/0 via 10.0.0.2",
    ]


def test_a_route_of_ours_is_replaced_a_foreign_one_never() -> None:
    wanted = carried(routes=(Route("10.9.0.0/16", "10.0.0.3"),))
    ours = carried(routes=(Route("10.9.0.0/16", "10.0.0.2"),))
    (message, _), *_ = difference.additions(ours, wanted, 3)
    assert message.flags == wire.NLM_F_CREATE | wire.NLM_F_REPLACE
    assert not list(difference.removals(ours, wanted, 3))
    (message, _), *_ = difference.additions(NOTHING, wanted, 3)
    assert message.flags == wire.NLM_F_CREATE | wire.NLM_F_EXCL


def test_foreign_facts_are_neither_removed_nor_written_again() -> None:
    address = facts.Address(2, bytes((10, 0, 0, 1)), 32, is_ours=False)
    route = facts.RouteFact(2, bytes((10, 9, 0, 0)), 16, is_ours=False)
    old = Carried({address}, {route}, frozenset(), frozenset(), BASE)
    assert not list(difference.removals(old, NOTHING, 3))
    assert not list(difference.additions(old, carried("10.0.0.1/32", routes=(Route("10.9.0.0/16"),)), 3))


def test_policies_have_a_table_each_and_a_default_route() -> None:
    state = carried(rules=(PolicyRoute("10.0.0.1/32", "6", "80", "1-9"), PolicyRoute("fd00::1", "", "", "")))
    assert {(rule.table, rule.priority) for rule in state.rules} == {(BASE, 0x4E00), (BASE + 1, 0x4E01)}
    assert {str(route) for route in state.routes} == {"0.0.0.0/0", "::/0"}
    rule = next(rule for rule in state.rules if rule.table == BASE)
    assert (rule.protocol, rule.destination_ports, rule.source_ports) == (6, (80, 80), (1, 9))


def test_a_policy_of_no_family_is_for_both() -> None:
    assert {rule.family for rule in carried(rules=(PolicyRoute("", "17", "53"),)).rules} == set(
        facts.FAMILIES
    )


@pytest.mark.parametrize(
    "wrong", [Route("10.0.0.0/33"), Route("10.0.0.0/8", "fd00::1"), Route(""), Route("10.0.0.0/8", "x")]
)
def test_text_that_is_no_route_is_refused(wrong: Route) -> None:
    with pytest.raises(ValueError, match=r".+"):
        facts.route(wrong)


def test_a_neighbour_that_changes_is_written_over() -> None:
    old = difference.wanted((), (), (IpNeighbor("10.0.0.2", "02:00:00:00:00:01"),), (), BASE)
    new = difference.wanted((), (), (IpNeighbor("10.0.0.2", "02:00:00:00:00:02"),), (), BASE)
    assert texts(difference.additions(old, new, 3)) == ["neighbour 10.0.0.2 at 02:00:00:00:00:02"]
    assert not list(difference.removals(old, new, 3))
    assert texts(difference.removals(old, NOTHING, 3)) == ["end of neighbour 10.0.0.2 at 02:00:00:00:00:01"]
