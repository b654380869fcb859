"""The difference between what an interface should carry and what it carries, as messages. No writes here."""

import zlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from forwarder_vpp.dataplane.netlink import facts, wire
from forwarder_vpp.dataplane.netlink.facts import Address, Neighbour, RouteFact, Rule
from forwarder_vpp.dataplane.netlink.session import Session
from forwarder_vpp.dataplane.netlink.wire import Message
from nsm.model.context import IpNeighbor, PolicyRoute, Route

_FIRST_TABLE: Final = 0x4E000000
_TABLES: Final = 0x100
_BASES: Final = 0x10000
_NO_RULES: Final[frozenset[Rule]] = frozenset()

Step = tuple[Message, str]
"""A message and what it does."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What an interface carries; ``base`` is the first of the tables its policies may use."""

    addresses: AbstractSet[Address]
    routes: AbstractSet[RouteFact]
    neighbours: AbstractSet[Neighbour]
    rules: AbstractSet[Rule]
    base: int


def seen(session: Session, index: int, interface: str, *, neighbours: bool) -> Carried:
    """What it carries now; neighbours are looked at only if asked for."""
    every = facts.all_rules(session)
    base = _base(session, index, interface, every)
    tables = range(base, base + _TABLES)
    return Carried(
        facts.addresses_of(session, index),
        frozenset(
            each for each in facts.routes_of(session, index) if each.table in {wire.RT_TABLE_MAIN, *tables}
        ),
        facts.neighbours_of(session, index) if neighbours else frozenset(),
        frozenset(each for each in every if each.is_ours and each.table in tables),
        base,
    )


def wanted(
    addresses: tuple[str, ...],
    routes: tuple[Route, ...],
    neighbours: tuple[IpNeighbor, ...],
    policies: tuple[PolicyRoute, ...],
    base: int,
) -> Carried:
    """What it should carry; ValueError for text that is no address, prefix or number."""
    rules: set[Rule] = set()
    all_routes = {facts.route(each) for each in routes}
    for number, policy in enumerate(policies):
        rules.update(facts.rules(policy, base + number, facts.FIRST_PRIORITY + number))
        all_routes.update(facts.policy_routes(policy, base + number))
    return Carried(
        {facts.address(each) for each in addresses},
        all_routes,
        {facts.neighbour(each) for each in neighbours},
        rules,
        base,
    )


def nothing(base: int) -> Carried:
    """What a bare interface carries."""
    return Carried(frozenset(), frozenset(), frozenset(), frozenset(), base)


def additions(old: Carried, new: Carried, index: int) -> Iterator[Step]:
    """What is missing, in an order the kernel accepts: addresses, on-link routes, routes over a gateway, the rest."""
    for address in sorted(new.addresses - old.addresses, key=str):
        yield address.message(wire.RTM_NEWADDR, index), f"address {address}"
    slots = {each.slot for each in old.routes if each.is_ours}
    for route in sorted(new.routes - old.routes, key=lambda each: (bool(each.gateway), str(each))):
        yield route.message(wire.RTM_NEWROUTE, index, replace=route.slot in slots), f"route {route}"
    for neighbour in sorted(new.neighbours - old.neighbours, key=str):
        yield neighbour.message(wire.RTM_NEWNEIGH, index), f"neighbour {neighbour}"
    for rule in sorted(new.rules - old.rules, key=str):
        yield rule.message(wire.RTM_NEWRULE), str(rule)


def removals(old: Carried, new: Carried, index: int) -> Iterator[Step]:
    """What is ours and no longer wanted; a route whose place a new one has taken is gone already."""
    for rule in old.rules - new.rules:
        yield rule.message(wire.RTM_DELRULE), f"end of {rule}"
    slots = {each.slot for each in new.routes}
    for route in old.routes - new.routes:
        if route.is_ours and route.slot not in slots:
            yield route.message(wire.RTM_DELROUTE, index), f"end of route {route}"
    for neighbour in old.neighbours - new.neighbours:
        if neighbour.is_ours and not any(each.ip == neighbour.ip for each in new.neighbours):
            yield neighbour.message(wire.RTM_DELNEIGH, index), f"end of neighbour {neighbour}"
    for address in old.addresses - new.addresses:
        if address.is_ours:
            yield address.message(wire.RTM_DELADDR, index), f"end of address {address}"


def _base(session: Session, index: int, interface: str, rules: AbstractSet[Rule]) -> int:
    """The tables of an interface: by its name, passing over such as anything else uses."""
    near = {each.table // _TABLES for each in rules if each.table >= _FIRST_TABLE}
    strangers: set[int] = set()
    if near:
        strangers = {each.table // _TABLES for each in rules if not each.is_ours}
        strangers |= {each.table // _TABLES for each in facts.routes_of(session) if each.index != index}
    for salt in range(_BASES):
        base = _FIRST_TABLE + (zlib.crc32(f"{interface}{salt}".encode()) % _BASES) * _TABLES
        if base // _TABLES not in strangers:
            return base
    raise AssertionError("every routing table is in use")
