"""The kernel as dataplane: a veth from workload to workload, or a tunnel device inside the workload's namespace."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from forwarder_vpp.dataplane.contract.dataplane import Counters, Namespaces
from forwarder_vpp.dataplane.contract.intent import End, Intent, KernelEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Descriptor, Item
from forwarder_vpp.dataplane.linux.objects.vxlan_device import KIND as VXLAN_DEVICE
from forwarder_vpp.dataplane.linux.objects.vxlan_device import VxlanDescriptor
from forwarder_vpp.dataplane.linux.objects.wireguard_device import (
    Engine,
    WireguardDescriptor,
    WireguardDevice,
)
from forwarder_vpp.dataplane.linux.wireguard_go import WireguardGo
from forwarder_vpp.dataplane.linux.wireguard_kernel import KernelWireguard
from forwarder_vpp.dataplane.linux.wireguard_user import UserspaceWireguard
from forwarder_vpp.dataplane.netlink import links
from forwarder_vpp.dataplane.netlink.link_config import KIND as LINK_CONFIG
from forwarder_vpp.dataplane.netlink.link_config import LinkConfigDescriptor
from forwarder_vpp.dataplane.netlink.links import Stats
from forwarder_vpp.dataplane.netlink.namespaces import NodeNetlink
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.veth import KIND as VETH
from forwarder_vpp.dataplane.netlink.veth import VethDescriptor
from forwarder_vpp.desired import linux as desired
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import ETHERNET, IP, KERNEL, LOCAL, REMOTE, VXLAN, WIREGUARD, Mechanism

IN_KERNEL: Final = "kernel"
WIREGUARD_GO: Final = "wireguard-go"

_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25
"""At 0.05 two hundred that waited at once kept a processor busy with asking, and their processes from answering."""


class LinuxDataplane:
    """Implements ``Dataplane``; between ``start`` and ``close``.

    ``state_dir`` holds the sockets of the wireguard-go processes, ``instance`` tells this forwarder's links from
    those of another one on the same machine, ``engines`` says which WireGuard makes new tunnels: the first one
    that this machine has.
    """

    name = "linux"
    workload_kinds = frozenset({LINK_CONFIG, VETH, VXLAN_DEVICE})

    def __init__(
        self,
        tunnel_ip: str,
        state_dir: Path,
        *,
        instance: str,
        engines: Sequence[str] = (IN_KERNEL, WIREGUARD_GO),
    ) -> None:
        self.tunnel_ip = tunnel_ip
        self.tunnel_mtu = 0
        self._netlink = NodeNetlink(instance)
        self._daemons = WireguardGo(state_dir / "wireguard", instance)
        known: dict[str, Engine] = {
            IN_KERNEL: KernelWireguard(self._netlink),
            WIREGUARD_GO: UserspaceWireguard(self._netlink, self._daemons),
        }
        self._wireguard = WireguardDescriptor([known[each] for each in engines])
        self.descriptors: Sequence[Descriptor[Any]] = (
            VethDescriptor(self._netlink),
            VxlanDescriptor(self._netlink),
            self._wireguard,
            LinkConfigDescriptor(self._netlink),
        )

    @property
    def writes(self) -> int:
        """How many netlink messages have changed something so far."""
        return self._netlink.writes

    @property
    def namespaces(self) -> Namespaces:
        """The workloads' namespaces."""
        return self._netlink

    async def start(self) -> None:
        """Look at what is there. NsmError FAILED_PRECONDITION if no interface has the tunnel address."""
        try:
            address = ip_address(self.tunnel_ip).packed
        except ValueError as error:
            raise NsmError(Code.INVALID_ARGUMENT, str(error), field="NSM_TUNNEL_IP") from error
        await self._netlink.start()
        await self._wireguard.start()
        mtu = await self._netlink.at_node(lambda session: links.mtu_of_owner(session, address))
        if mtu is None:
            text = f"expected an address of this node, but no interface has {self.tunnel_ip}"
            raise NsmError(Code.FAILED_PRECONDITION, text, field="NSM_TUNNEL_IP")
        self.tunnel_mtu = mtu

    async def close(self) -> None:
        """Let go of everything; links and tunnels stay and carry on."""
        await self._netlink.close()
        self._daemons.close()

    def node_items(self) -> tuple[Item, ...]:
        """None: the node forwards nothing."""
        return ()

    def items(self, intent: Intent) -> tuple[Item, ...]:
        """What realises ``intent``."""
        return desired.items(intent)

    def offers(self, payload: str) -> tuple[tuple[str, str], ...]:
        """(cls, type) this machine can realise, best first."""
        if payload == ETHERNET:
            return (LOCAL, KERNEL), (REMOTE, VXLAN)
        if payload == IP:
            return ((LOCAL, KERNEL),) if self._wireguard.refusal() else ((LOCAL, KERNEL), (REMOTE, WIREGUARD))
        return ()

    def refusal(self, mechanism: Mechanism, payload: str) -> NsmError | None:
        """Why it cannot be; ``None`` if it can."""
        if (mechanism.cls, mechanism.type) in self.offers(payload):
            return None
        if (mechanism.type, payload) == (WIREGUARD, IP):
            text = f"WireGuard is missing on this node: {self._wireguard.refusal()}"
            return NsmError(Code.FAILED_PRECONDITION, text, field="mechanism.type")
        offered = " or ".join("/".join(pair) for pair in self.offers(payload)) or "nothing"
        text = (
            f"expected {offered} for payload {payload or '(none)'} on the linux dataplane,"
            f" got {mechanism.cls}/{mechanism.type}"
        )
        return NsmError(Code.UNIMPLEMENTED, text, field="mechanism.type")

    async def settle(self, intent: Intent, timeout: float) -> None:  # noqa: ASYNC109  # names its reason at the end
        """Await the first handshake of a tunnel towards the endpoint; its peer is configured by then.

        Neither the kernel's WireGuard nor wireguard-go announces one: the state is read every 5 to 250 ms until
        ``timeout`` seconds have passed.
        """
        end = intent.endpoint
        if not isinstance(end, WireguardEnd):
            return
        (device,) = (item for item in self.items(intent) if isinstance(item, WireguardDevice))
        pause = _FIRST_PAUSE
        try:
            async with asyncio.timeout(timeout):
                while not await self._wireguard.has_handshake(device):
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, _LONGEST_PAUSE)
        except TimeoutError:
            text = f"no WireGuard handshake with {end.remote}:{end.remote_port} within {timeout:g} s"
            raise NsmError(Code.DEADLINE_EXCEEDED, text, field="mechanism") from None

    async def counters(self, intents: Sequence[Intent]) -> Mapping[str, tuple[Counters, Counters]]:
        """By intent id: client end, endpoint end. Of a tunnel both are those of its one device, seen from each side."""
        places = {each.id: (self._place(each.client), self._place(each.endpoint)) for each in intents}

        def work(session: Session) -> dict[str, tuple[Counters, Counters]]:
            return {key: _counters(session, *ends) for key, ends in places.items()}

        return await self._netlink.at_node(work)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Never: the kernel does not lose what it has without the agent."""

    def _place(self, end: End) -> tuple[int, str] | None:
        nsid = self._netlink.nsid(end.netns) if isinstance(end, KernelEnd) else None
        return (nsid, end.interface) if isinstance(end, KernelEnd) and nsid is not None else None


def _counters(
    session: Session, client: tuple[int, str] | None, endpoint: tuple[int, str] | None
) -> tuple[Counters, Counters]:
    near, far = _stats(session, client), _stats(session, endpoint)
    if client is None:
        return _as_tunnel(far), _as_workload(far)
    return _as_workload(near), _as_tunnel(near) if endpoint is None else _as_workload(far)


def _stats(session: Session, place: tuple[int, str] | None) -> Stats | None:
    if place is None:
        return None
    try:
        return links.stats(session, *place)
    except NetlinkError as error:
        if error.errno in GONE:
            return None
        raise


def _as_workload(stats: Stats | None) -> Counters:
    """What the workload sends is what comes in from it."""
    if stats is None:
        return Counters()
    drops = stats.rx_dropped + stats.tx_dropped
    return Counters(stats.tx_packets, stats.rx_packets, stats.tx_bytes, stats.rx_bytes, drops)


def _as_tunnel(stats: Stats | None) -> Counters:
    """The same device seen from the other node."""
    if stats is None:
        return Counters()
    drops = stats.rx_dropped + stats.tx_dropped
    return Counters(stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes, drops)
