"""Addresses against a brute-force oracle: never twice, never excluded, always the lowest that are left."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.endpoint.ipam import PointToPointIpam
from controlplane.endpoint.prefixes import Address, AddressSet, IntervalSet, Network, lowest
from nsm.model.context import IpContext
from nsm.model.errors import Code, NsmError

POOL = ip_network("10.0.0.0/26")
SIXES = ip_network("fd00::/122")
EXCLUSION_SETS = 1000
CYCLES = 500


def addresses(context: IpContext) -> list[Address]:
    return [ip_address(text.split("/")[0]) for text in (*context.dst_ip_addrs, *context.src_ip_addrs)]


@st.composite
def prefixes_inside(draw: st.DrawFn) -> str:
    """A prefix in or around the pools, of any length."""
    if draw(st.booleans()):
        length = draw(st.integers(24, 32))
        return str(ip_network((int(POOL[0]) + draw(st.integers(0, 63)), length), strict=False))
    length = draw(st.integers(120, 128))
    return str(ip_network((int(SIXES[0]) + draw(st.integers(0, 63)), length), strict=False))


def answer(pool: PointToPointIpam, name: str, asked: IpContext) -> IpContext | Code:
    """The context of a Request, or the code it failed with."""
    try:
        return pool.request(name, asked)
    except NsmError as error:
        return error.code


def oracle_pair(network: Network, used: set[Address], excluded: list[Network]) -> list[Address] | None:
    """The two lowest free addresses, found by looking at every address."""
    free = [a for a in network if a not in used and not any(a in prefix for prefix in excluded)]
    return [free[0], free[1]] if len(free) > 1 else None


def test_no_address_handed_out_lies_in_an_excluded_prefix_over_1000_random_sets() -> None:
    chance = random.Random(20240607)
    handed_out = 0
    for _ in range(EXCLUSION_SETS):
        excluded = []
        for _ in range(chance.randrange(8)):
            length = chance.randrange(26, 33)
            excluded.append(ip_network((int(POOL[0]) + chance.randrange(64), length), strict=False))
        pool = PointToPointIpam([[POOL]])
        used: set[Address] = set()
        for connection in range(chance.randrange(1, 40)):
            expected = oracle_pair(POOL, used, excluded)
            texts = tuple(str(prefix) for prefix in excluded)
            got = answer(pool, str(connection), IpContext(excluded_prefixes=texts))
            if isinstance(got, Code):
                assert (got, expected) == (Code.RESOURCE_EXHAUSTED, None)
                break
            pair = addresses(got)
            assert pair == expected
            assert not any(address in prefix for address in pair for prefix in excluded)
            used.update(pair)
            handed_out += len(pair)
    assert handed_out > EXCLUSION_SETS  # the sets left room enough to mean something


def test_exclusions_hold_for_every_group_family_and_refresh_over_1000_random_sets() -> None:
    """Groups of several prefixes, both families; the second set of exclusions arrives with a refresh."""
    chance = random.Random(20261125)
    replaced = kept = 0
    for _ in range(EXCLUSION_SETS):
        halves = [[ip_network("10.0.0.0/27"), ip_network("10.0.0.32/27")], [SIXES]]
        pool = PointToPointIpam(halves, strict=chance.random() < 0.5)
        context = IpContext()
        for _ in range(2):
            excluded = [
                str(
                    ip_network((int(net[0]) + chance.randrange(64), chance.randrange(*lengths)), strict=False)
                )
                for net, lengths in ((POOL, (27, 33)), (SIXES, (123, 129)))
                for _ in range(chance.randrange(4))
            ]
            before = context
            got = answer(pool, "c", replace(context, excluded_prefixes=tuple(excluded)))
            if isinstance(got, Code):
                assert got is Code.RESOURCE_EXHAUSTED
                continue
            context = got
            assert sorted(address.version for address in addresses(got)) == [4, 4, 6, 6]
            assert not any(address in ip_network(text) for address in addresses(got) for text in excluded)
            if before.src_ip_addrs:
                replaced += got.src_ip_addrs != before.src_ip_addrs
                kept += got.src_ip_addrs == before.src_ip_addrs
    assert replaced > EXCLUSION_SETS // 10  # both happened often enough to mean something
    assert kept > EXCLUSION_SETS // 10


def test_a_pool_that_remembers_its_answers_is_like_one_that_chooses_each_time_anew() -> None:
    chance = random.Random(11)
    pools = [PointToPointIpam([[POOL], [SIXES]], strict=strict) for strict in (False, False, True, True)]
    last: dict[str, IpContext] = {}
    repeated = 0
    for _ in range(4 * EXCLUSION_SETS):
        name = chance.choice("abcdefgh")
        match chance.choice(("refresh", "refresh", "change", "rollback", "release")):
            case "rollback":
                for pool in pools:
                    pool.rollback(name)
            case "release":
                last.pop(name, None)
                for pool in pools:
                    pool.release(name)
            case wish:
                asked = last.get(name, IpContext())
                if wish == "change":
                    network = ip_network(
                        (int(POOL[0]) + chance.randrange(64), chance.randrange(29, 33)), False
                    )
                    asked = replace(asked, excluded_prefixes=(str(network),))
                for forgetful in pools[::2]:
                    forgetful._answers.clear()
                got = [answer(pool, name, asked) for pool in pools]
                assert got[0] == got[1]
                assert got[2] == got[3]
                if isinstance(got[0], IpContext):
                    repeated += got[0] == asked
                    last[name] = got[0]
        assert pools[0].leases == pools[1].leases
        assert pools[2].leases == pools[3].leases
    assert repeated > EXCLUSION_SETS  # often enough to mean something


def test_no_address_is_held_twice_over_500_cycles_with_a_crash_in_the_middle() -> None:
    """Half of the clients refresh after the crash, in random order, between newcomers."""
    chance = random.Random(7)
    pool = PointToPointIpam([[POOL], [SIXES]])
    live: dict[str, IpContext] = {}
    stale: dict[str, IpContext] = {}
    for cycle in range(CYCLES):
        if cycle == CYCLES // 2:
            pool, stale, live = PointToPointIpam([[POOL], [SIXES]]), live, {}
        if stale and chance.random() < 0.5:
            name = chance.choice(sorted(stale))
            live[name] = pool.request(name, stale.pop(name))
        elif len(live) < 24 and (not live or chance.random() < 0.6):
            name = f"c{cycle}"
            live[name] = pool.request(name, IpContext())
        else:
            name = chance.choice(sorted(live))
            pool.release(name)
            del live[name]
        for name, context in live.items():
            assert len(context.src_ip_addrs) == len(context.dst_ip_addrs) == 2, name
        held = [address for context in live.values() for address in addresses(context)]
        assert len(held) == len(set(held))
        assert set(held) == {address for lease in pool.leases.values() for address in lease.addresses()}


def test_installed_leases_keep_every_client_its_addresses_over_a_crash() -> None:
    before = PointToPointIpam([[POOL], [SIXES]])
    live = {str(number): before.request(str(number), IpContext()) for number in range(20)}
    for number in range(0, 20, 3):
        before.release(str(number))
        del live[str(number)]
    after = PointToPointIpam([[POOL], [SIXES]])
    for name, lease in before.leases.items():
        assert after.install(name, lease)
    fresh = {f"new{number}": after.request(f"new{number}", IpContext()) for number in range(7)}
    for name, context in live.items():
        assert after.request(name, context) == context
    held = [address for context in (*live.values(), *fresh.values()) for address in addresses(context)]
    assert len(held) == len(set(held))


def asking(known: IpContext, excluded: list[str]) -> IpContext:
    """A refresh of what the client knows, with other exclusions."""
    return replace(known, excluded_prefixes=tuple(excluded))


STEPS = st.tuples(
    st.sampled_from(["request", "request", "confirm", "rollback", "release", "crash"]),
    st.sampled_from("abcdef"),
    st.lists(prefixes_inside(), max_size=4),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_any_history_keeps_addresses_disjoint_and_not_excluded(
    history: list[tuple[str, str, list[str]]],
) -> None:
    pool = PointToPointIpam([[POOL], [SIXES]])
    live: dict[str, IpContext] = {}
    before: dict[str, IpContext | None] = {}
    for verb, name, excluded in history:
        if verb == "request":
            leases = dict(pool.leases)
            got = answer(pool, name, asking(live.get(name, IpContext()), excluded))
            before.pop(name, None)
            if isinstance(got, Code):
                assert got is Code.RESOURCE_EXHAUSTED
                assert pool.leases == leases
                continue
            before[name], live[name] = live.get(name), got
            assert not any(a in ip_network(prefix) for a in addresses(got) for prefix in excluded)
            assert [route.prefix for route in got.src_routes] == list(got.dst_ip_addrs)
            assert [route.prefix for route in got.dst_routes] == list(got.src_ip_addrs)
        elif verb == "crash":
            pool = PointToPointIpam([[POOL], [SIXES]])
            before.clear()
            for client, context in live.items():
                assert pool.request(client, context) == context
                pool.confirm(client)
        elif verb == "confirm":
            pool.confirm(name)
            before.pop(name, None)
        elif verb == "rollback":
            pool.rollback(name)
            former = before.pop(name, live.get(name))
            live.pop(name, None)
            if former is not None:
                live[name] = former
        else:
            pool.release(name)
            before.pop(name, None)
            live.pop(name, None)
        held = [address for context in live.values() for address in addresses(context)]
        assert len(held) == len(set(held))
        assert set(held) == {address for lease in pool.leases.values() for address in lease.addresses()}


NUMBERS = st.integers(0, 40)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), NUMBERS, NUMBERS), max_size=30), NUMBERS)
def test_intervals_are_a_set_of_numbers(changes: list[tuple[bool, int, int]], start: int) -> None:
    intervals, oracle = IntervalSet(), set[int]()
    for adding, one, other in changes:
        first, last = min(one, other), max(one, other)
        if adding:
            intervals.add(first, last)
            oracle |= set(range(first, last + 1))
        else:
            intervals.discard(first, last)
            oracle -= set(range(first, last + 1))
        assert [n for n in range(-1, 43) if n in intervals] == sorted(oracle)
        assert len(intervals) == sum(n - 1 not in oracle for n in oracle)
    assert intervals.gap(start) == next(n for n in range(start, 43) if n not in oracle)


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 63)), st.sets(st.integers(0, 63)), st.integers(-1, 63))
def test_the_lowest_address_is_in_none_of_the_sets(one: set[int], other: set[int], above: int) -> None:
    sets = AddressSet(), AddressSet()
    for chosen, numbers in zip(sets, (one, other), strict=True):
        for number in numbers:
            chosen.add(POOL[number])
    floor = IPv4Address(int(POOL[0]) + above) if above >= 0 else None
    free = [number for number in range(above + 1, 64) if number not in one | other]
    assert lowest(POOL, *sets, above=floor) == (POOL[free[0]] if free else None)
