"""What a connection puts on an interface in a workload's namespace: addresses, routes, neighbours, rules, MTU.

Written by difference: dumps first, then only what differs. What the workload itself added is never touched: ours
carries ``PROTOCOL`` (addresses, routes, neighbours, rules all have such a field).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from forwarder_vpp.dataplane.contract.intent import KernelEnd, NetnsId
from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.netlink.access import Netlink
from nsm.model.context import IpNeighbor, PolicyRoute, Route

KIND: Final = "link_config"


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """The configuration of interface ``interface`` in ``netns``, made by ``link`` (the key it waits for).

    ``addresses`` are ``address/length``; a route without ``next_hop`` is on-link; ``mtu`` in bytes, 0 = leave it.
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

    @property
    def key(self) -> Key:
        """By place."""
        place = self.netns
        return Key(KIND, f"{place.inode}.{place.cookie}/{self.interface}")

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface."""
        return (self.link,)


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
        """Bring the interface to ``item``."""

    def updatable(self, old: LinkConfig, new: LinkConfig) -> bool:
        """Always, by difference."""

    async def update(self, old: LinkConfig, new: LinkConfig, handle: object, handles: Handles) -> object:
        """Bring the interface from ``old`` to ``new``."""

    async def delete(self, item: LinkConfig, handle: object, handles: Handles) -> None:
        """Remove what outlives the interface (policy rules); the rest goes with it."""

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """The wanted configurations as they are; one whose namespace cannot be entered counts as it was."""
