"""What the agent asks of a dataplane, whichever it is: VPP, the kernel, or a fake."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from forwarder_vpp.dataplane.contract.intent import Intent, NetnsId
from forwarder_vpp.dataplane.contract.items import Descriptor, Item
from nsm.model.errors import NsmError
from nsm.model.mechanism import Mechanism


@dataclass(frozen=True, slots=True)
class Counters:
    """What one end of a connection has carried since it was made: packets, bytes, and packets dropped.

    ``rx`` and ``tx`` are the forwarder's: ``rx`` came in from that end, ``tx`` went out to it.
    """

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    drops: int = 0


class Namespaces(Protocol):
    """The workloads' network namespaces, known by id; no socket or descriptor into one is kept between uses."""

    def learn(self, path: str) -> NetnsId:
        """The namespace at ``path`` (``/proc/self/fd/N``, ``/run/netns/x``).

        NsmError INVALID_ARGUMENT with field ``inodeURL`` when there is none.
        """

    def on_gone(self, callback: Callable[[NetnsId], None]) -> None:
        """Call ``callback`` whenever a learned namespace has ended."""

    async def remove_foreign(self, netns: NetnsId, alias: str) -> int:
        """Remove the links of that alias, which is none of ours, from a learned namespace; how many there were."""


class Dataplane(Protocol):
    """Realises intents as items; every failure is an NsmError."""

    @property
    def name(self) -> str:
        """``vpp`` or ``linux``."""

    @property
    def descriptors(self) -> Sequence[Descriptor[Any]]:
        """One per kind of item, no two of a kind."""

    @property
    def workload_kinds(self) -> frozenset[str]:
        """Kinds of items that take up something in a workload's namespace which the next connection may be given.

        Nothing of another kind requires one; each goes fast, and before a Close is passed on.
        """

    @property
    def tunnel_ip(self) -> str:
        """The address tunnels start at; known after ``start``."""

    @property
    def tunnel_mtu(self) -> int:
        """Bytes of an IP packet that the underlay carries; known after ``start``."""

    @property
    def namespaces(self) -> Namespaces:
        """The workloads' namespaces."""

    async def start(self) -> None:
        """Connect, check versions, take the uplink over as far as items do not say it."""

    async def close(self) -> None:
        """Let go; everything that exists stays in place and forwards on."""

    def node_items(self) -> tuple[Item, ...]:
        """The items of the permanent owner ``node``."""

    def items(self, intent: Intent) -> tuple[Item, ...]:
        """The items that realise ``intent``; pure, the same intent gives the same items."""

    def offers(self, payload: str) -> tuple[tuple[str, str], ...]:
        """(cls, type) of the mechanisms it can realise for ``payload``, in order of preference."""

    def refusal(self, mechanism: Mechanism, payload: str) -> NsmError | None:
        """Why it cannot realise ``mechanism`` with ``payload``; None if it can."""

    async def settle(self, intent: Intent, timeout: float) -> None:  # noqa: ASYNC109 - a wait with a named reason at its end
        """Await what must happen before packets flow: link up, WireGuard handshake (``timeout`` in s)."""

    async def counters(self, intents: Sequence[Intent]) -> Mapping[str, tuple[Counters, Counters]]:
        """By intent id: the counters of the client end and of the endpoint end."""

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when everything that existed is gone or unknown, as after VPP's death."""
