"""What a connection puts on an interface in a workload's namespace: addresses, routes, neighbours, rules, MTU.

Written by difference: dumps first, then only what differs. What the workload itself added is never touched: ours
carries ``facts.PROTOCOL`` (addresses, routes, neighbours, rules all have such a field).
"""

import errno
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from socket import AF_INET6
from typing import Final

import structlog

from forwarder_vpp.dataplane.contract.intent import KernelEnd, NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.netlink import difference, links, solicited, wire
from forwarder_vpp.dataplane.netlink.access import NETNS_FIELD, Netlink
from forwarder_vpp.dataplane.netlink.facts import Address
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from nsm.model.context import IpNeighbor, PolicyRoute, Route
from nsm.model.errors import Code, NsmError

KIND: Final = "link_config"
CONTEXT_FIELD: Final = "connection.context.ip_context"

_IPV6: Final = Path("/proc/sys/net/ipv6/conf")
_PING: Final = Path("/proc/sys/net/ipv4/ping_group_range")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """The configuration of interface ``interface`` in ``netns``, made by ``link`` (the key it waits for).

    ``addresses`` are ``address/length``; a route without ``next_hop`` is on-link; ``mtu`` in bytes, 0 = leave it.
    ``is_drifted`` is never wanted: a dump says so of an interface that is not as wanted.
    """

    owner: str
    netns: NetnsId
    interface: str
    link: Key
    mtu: int
    addresses: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[IpNeighbor, ...] = ()
    rules: tuple[PolicyRoute, ...] = ()
    is_drifted: bool = False

    @property
    def key(self) -> Key:
        """By place."""
        place = self.netns
        return Key(KIND, f"{place.inode}.{place.cookie}/{self.interface}")

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.link,)

    @property
    def carrier(self) -> Key | None:
        """The interface, unless there are rules: those name no interface and stay."""
        return None if self.rules or self.is_drifted else self.link


def link_config(owner: str, end: KernelEnd, link: Key, mtu: int) -> LinkConfig:
    """The configuration a kernel end asks for."""
    return LinkConfig(
        owner, end.netns, end.interface, link, mtu, end.addresses, end.routes, end.neighbours, end.rules
    )


class LinkConfigDescriptor:
    """Descriptor of ``LinkConfig``; no handle."""

    kind = KIND

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    async def create(self, item: LinkConfig, handles: Handles) -> object:
        """Bring the interface to ``item``; on failure nothing of it stays."""
        _ = handles
        try:
            await self._netlink.inside(item.netns, partial(self._bring, item, is_bare=not item.rules))
        except NsmError:
            bare = replace(item, mtu=0, addresses=(), routes=(), neighbours=(), rules=())
            with suppress(NsmError):  # the first failure is the one to tell; the interface itself goes next
                await self._netlink.inside(item.netns, partial(self._bring, bare))
            raise
        return None

    def updatable(self, old: LinkConfig, new: LinkConfig) -> bool:
        """Always, by difference."""
        return old.key == new.key

    async def update(self, old: LinkConfig, new: LinkConfig, handle: object, handles: Handles) -> object:
        """Bring the interface from ``old`` to ``new``: first what is new, then away with what is not wanted."""
        _ = handles
        neighbours = bool(old.neighbours or new.neighbours)
        await self._netlink.inside(new.netns, partial(self._bring, new, neighbours=neighbours))
        return handle

    async def delete(self, item: LinkConfig, handle: object, handles: Handles) -> None:
        """Addresses, routes and rules are free for another interface at once; the rest goes with this one.

        Where the namespace cannot be entered, everything but the rules goes with the interface.
        """
        _ = handle, handles
        if not self._netlink.present(item.netns):
            return
        try:
            await self._netlink.inside(item.netns, partial(self._withdraw, item.interface))
        except NsmError as error:
            if item.rules or error.field != NETNS_FIELD:
                raise

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """The wanted configurations as they are; one whose namespace exists but cannot be entered counts as it was."""
        found = []
        for item in wanted.values():
            if isinstance(item, LinkConfig) and self._netlink.present(item.netns):
                try:
                    actual = await self._netlink.inside(item.netns, partial(self._look, item))
                except NsmError as error:
                    if error.field != NETNS_FIELD:
                        raise
                    _log.warning("namespace cannot be entered, taken as unchanged", interface=item.interface)
                    actual = item
                if actual is not None:
                    found.append(Present(item.key, actual, None, item.owner))
        return found

    def _bring(
        self, item: LinkConfig, session: Session, *, neighbours: bool = False, is_bare: bool = False
    ) -> None:
        """``is_bare``: nothing of ours is on it yet, so there is no need to look, unless something is in the way."""
        try:
            link = links.find(session, links.AT_NODE, item.interface, self._netlink.tags)
            session.change_all(_link_steps(item, link))
            _open_sysctls(item)
            if not (is_bare and _dress(item, session, link)):
                _settle(item, session, link, neighbours=neighbours or bool(item.neighbours))
        except NetlinkError as error:
            raise NsmError(error.code, error.message, field=error.field or CONTEXT_FIELD) from error

    def _withdraw(self, interface: str, session: Session) -> None:
        try:
            index = links.find(session, links.AT_NODE, interface, self._netlink.tags).index
        except NetlinkError as error:
            if error.errno not in GONE:
                raise
            index = 0  # the interface went first, and with it all but the rules
        old = difference.seen(session, index, interface, neighbours=False)
        if not index:
            old = replace(old, addresses=frozenset(), routes=frozenset())
        session.change_all(difference.removals(old, difference.nothing(old.base), index), ignore=GONE)

    def _look(self, item: LinkConfig, session: Session) -> LinkConfig | None:
        """``item`` as it is; ``None`` if there is no such interface."""
        try:
            link = links.find(session, links.AT_NODE, item.interface, self._netlink.tags)
        except NetlinkError as error:
            if error.errno in GONE:
                return None
            raise
        old = difference.seen(session, link.index, item.interface, neighbours=True)
        new = _wanted(item, old.base)
        steps = [*_link_steps(item, link), *difference.additions(old, new, link.index)]
        is_as_wanted = (
            not steps and not list(difference.removals(old, new, link.index)) and not _closed_sysctls(item)
        )
        return (
            item
            if is_as_wanted
            else replace(
                item, mtu=link.mtu, addresses=(), routes=(), neighbours=(), rules=(), is_drifted=True
            )
        )


def _dress(item: LinkConfig, session: Session, link: Link) -> bool:
    """Put everything on a bare interface; ``False`` if there was something in the way."""
    bare = difference.nothing(0)
    new = _wanted(item, bare.base)
    try:
        session.change_all(difference.additions(bare, new, link.index))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        return False
    _await_heard(session, link, new.addresses)
    return True


def _settle(item: LinkConfig, session: Session, link: Link, *, neighbours: bool) -> None:
    """Look, and write the difference."""
    is_settled = False
    while not is_settled:
        old = difference.seen(session, link.index, item.interface, neighbours=neighbours)
        new = _wanted(item, old.base)
        session.change_all(difference.additions(old, new, link.index))
        removals = list(difference.removals(old, new, link.index))
        session.change_all(removals, ignore=GONE)
        # a primary address takes its secondaries with it: look again
        is_settled = not any(message.type == wire.RTM_DELADDR for message, _ in removals)
        _await_heard(session, link, new.addresses - old.addresses)


def _await_heard(session: Session, link: Link, added: AbstractSet[Address]) -> None:
    """Until neighbours can find the new IPv6 addresses; without that the connection works a second later."""
    if link.finds_neighbours and not solicited.await_joined(
        session, link.index, (each.ip for each in added if each.family == AF_INET6)
    ):
        _log.warning("new IPv6 addresses are not heard yet", interface=link.name, seconds=solicited.PATIENCE)


def _wanted(item: LinkConfig, base: int) -> difference.Carried:
    try:
        return difference.wanted(item.addresses, item.routes, item.neighbours, item.rules, base)
    except ValueError as error:
        raise NsmError(
            Code.INVALID_ARGUMENT, f"expected addresses and prefixes: {error}", field=CONTEXT_FIELD
        ) from error


def _link_steps(item: LinkConfig, link: Link) -> list[difference.Step]:
    """Up, and the MTU, where that differs."""
    size = [(wire.IFLA_MTU, wire.u32(item.mtu))] if item.mtu and link.mtu != item.mtu else []
    if not size and link.is_up:
        return []
    return [(links.change(link.name, size, up=True), f"{link.name} up, MTU {item.mtu}")]


def _closed_sysctls(item: LinkConfig) -> list[tuple[Path, str]]:
    """The switches that are off: IPv6 on the interface, ping without privileges in the namespace."""
    closed = []
    has_v6 = any(":" in address for address in item.addresses)
    switch = _IPV6 / item.interface / "disable_ipv6"
    if has_v6 and switch.read_text().strip() != "0":
        closed.append((switch, "0"))
    low, high = _PING.read_text().split()
    if int(low) > int(high):
        closed.append((_PING, "0 2147483647"))
    return closed


def _open_sysctls(item: LinkConfig) -> None:
    try:
        for switch, value in _closed_sysctls(item):
            try:
                switch.write_text(value)
            except OSError:
                if switch != _PING:
                    raise
                switch.write_text("0 0")  # in a user namespace only mapped groups can be named
    except OSError as error:
        text = f"expected a namespace whose settings can be changed: {error}"
        raise NsmError(Code.FAILED_PRECONDITION, text, field=CONTEXT_FIELD) from error
