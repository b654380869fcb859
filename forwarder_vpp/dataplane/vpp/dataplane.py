"""The dataplane ``vpp``: a VPP of our own or an external one, its uplink, and everything a connection is made of."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog

from forwarder_vpp.dataplane.contract.dataplane import Counters, Namespaces
from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Descriptor, Item, Key
from forwarder_vpp.dataplane.netlink.link_config import KIND as LINK_CONFIG
from forwarder_vpp.dataplane.netlink.link_config import LinkConfigDescriptor
from forwarder_vpp.dataplane.netlink.namespaces import NodeNetlink
from forwarder_vpp.dataplane.netlink.places import candidates
from forwarder_vpp.desired.vpp import (
    DEFAULT_RING,
    EXPEDITED_RING,
    UPLINK_RING,
    VPP_MAC,
    NodeFacts,
    UplinkFacts,
    connection_items,
    interface_key,
    uplink_items,
)
from nsm.model.errors import Code, NsmError, invalid
from nsm.model.mechanism import ETHERNET, IP, KERNEL, LOCAL, REMOTE, VXLAN, WIREGUARD, Mechanism

from .answering import Answering
from .counting import StatsSegment
from .expedited import expedited_if_possible
from .messages.interface import InterfaceDetails, InterfaceDump
from .messages.ip import AddressDump
from .objects.af_packet import Ring
from .objects.all import vpp_descriptors
from .objects.tags import CLIENT, ENDPOINT
from .objects.tap import Taps
from .objects.udp_port import UdpPorts
from .objects.wireguard_peer import WireguardPeer, WireguardPeers
from .pool import Shape, WarmPool
from .pooled import PooledAfPackets, PooledVeths
from .process import VppProcess
from .profile import rings
from .recording import OwnedByConnection, Recording
from .session import VppSession
from .underlay import Underlay, UnderlayWatch, read_now
from .waiting import Waiting

_log = structlog.get_logger(__name__)

_OFFERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    IP: ((LOCAL, KERNEL), (REMOTE, WIREGUARD)),
    ETHERNET: ((LOCAL, KERNEL), (REMOTE, VXLAN)),
}
_START = 20.0  # seconds for VPP to start and to answer


@dataclass(frozen=True, slots=True)
class VppOptions:
    """``api_socket`` names an external VPP; without it one is started in ``state_dir``/vpp from ``profile``.

    ``ports`` are the UDP ranges that tunnels may arrive at. ``uplink``: ``auto`` = the NIC that owns the tunnel
    address unless VPP has that address already, ``none`` = VPP has its own. ``expedited``: see ``expedited.py``.
    ``ends_vpp``: one that we started ends with us.
    ``warm_pool``: how many ready pairs wait for connections (``pool.py``); none where a pair is made faster than
    it is handed over, which is with ``expedited`` and with taps.
    """

    api_socket: str = ""
    stats_socket: str = ""
    profile: str = "lab"
    values: Mapping[str, str] = field(default_factory=dict)
    binary: str | None = None
    uplink: str = "auto"
    expedited: bool = False
    ports: tuple[tuple[int, int], ...] = ((4789, 4789), (51820, 51820), (61000, 65535))
    warm_pool: int = 0
    ends_vpp: bool = False


class VppDataplane:
    """Implements the contract ``Dataplane``."""

    name = "vpp"
    workload_kinds = frozenset({LINK_CONFIG})

    def __init__(
        self, tunnel_ip: str, state_dir: Path, options: VppOptions | None = None, *, instance: str
    ) -> None:
        self.options = options or VppOptions()
        self.tunnel_ip = tunnel_ip
        self.tunnel_mtu = 0
        self._state_dir = state_dir
        self.process = None if self.options.api_socket else self._own_process()
        api = self.options.api_socket or str(state_dir / "vpp" / "api.sock")
        stats = self.options.stats_socket or str(Path(api).with_name("stats.sock"))
        expedited = expedited_if_possible() if self.options.expedited else None
        around = expedited.during if expedited else nullcontext
        self.session = VppSession(api, around_rings=around)
        self.netlink = NodeNetlink(instance)
        self._stats = StatsSegment(stats)
        self._waiting = Waiting(self.session, os.getpid())
        self._known: dict[Key, int] = {}
        self._answering = Answering(self._waiting, self._known)
        self._ports = UdpPorts()
        self._underlay: Underlay | None = None
        self._watch: UnderlayWatch | None = None
        self._lost: list[Callable[[], None]] = []
        self._node_changed: list[Callable[[], None]] = []
        sizes = rings(self.options.profile)
        self._uplink_ring = _ring(sizes.get("uplink"), UPLINK_RING)
        ring = (
            _ring(sizes.get("expedited"), EXPEDITED_RING)
            if expedited
            else _ring(sizes.get("workload"), DEFAULT_RING)
        )
        self._facts = NodeFacts(ring=ring, taps=Path("/dev/vhost-net").exists())
        size = 0 if expedited or self._facts.taps else self.options.warm_pool
        self.pool = WarmPool(self.session, self.netlink, Shape(ring, VPP_MAC), size, instance)
        peers = WireguardPeers(self.session, self._waiting.peer_made)
        kinds = vpp_descriptors(self.session, PooledAfPackets(self.session, self.pool), peers)
        self.descriptors: tuple[Descriptor[Any], ...] = (
            self._ports,
            OwnedByConnection(PooledVeths(self.netlink, self.pool)),
            LinkConfigDescriptor(self.netlink),
            *(Recording(each, self._known) for each in kinds),
            Recording(Taps(self.session, _lasting_path), self._known),
        )

    def _own_process(self) -> VppProcess:
        options = self.options
        folder = self._state_dir / "vpp"
        return VppProcess(folder, profile=options.profile, values=options.values, binary=options.binary)

    @property
    def namespaces(self) -> Namespaces:
        """The workloads' namespaces."""
        return self.netlink

    # life

    async def missing(self) -> NsmError | None:
        """Why a VPP that is not ours cannot be reached now, tried once; ``None``: it can, or we start one.

        NsmError FAILED_PRECONDITION: it is one of another API.
        """
        if self.process is not None:
            return None
        try:
            await self.session.connect()
        except NsmError as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            return error
        return None

    async def start(self) -> None:
        """VPP, session, events, underlay; a VPP that is not ours is waited for, however long that takes.

        NsmError: no VPP to start, one of another API, or no tunnel address. A VPP that was started for that has ended.
        """
        try:
            await self._start()
        except BaseException:
            if self.process is not None and self.process.starts:
                await self.process.stop()
            await self.close()
            raise

    async def _start(self) -> None:
        if self.process is not None:
            await self.process.ensure(_START)
        await self.session.start(None if self.process is None else _START)
        await self._waiting.subscribe(self.session)
        self.session.on_up(self._on_up)
        await self.netlink.start()
        await self.pool.start()
        uplink = await self._uplink_in_vpp()
        is_on_link = uplink is not None and uplink.interface_dev_type == "af-packet"
        if self.options.uplink != "none" and (uplink is None or is_on_link):
            self._underlay = await asyncio.to_thread(read_now, self.tunnel_ip)
            self.tunnel_mtu = self._underlay.mtu
            self._watch = UnderlayWatch(self.tunnel_ip, self._underlay, self._on_underlay)
            _log.info("uplink of the kernel shared", link=self._underlay.link, mtu=self.tunnel_mtu)
        elif uplink is None:
            _log.warning("VPP has no uplink: connections to other nodes will fail", tunnel_ip=self.tunnel_ip)
        else:
            self.tunnel_mtu = uplink.mtu[0] or uplink.link_mtu
            self._facts = replace(self._facts, holds_ports=is_on_link)

    async def _uplink_in_vpp(self) -> InterfaceDetails | None:
        """The interface that owns the tunnel address in VPP; one of af_packet shares the NIC with the kernel."""
        is_ipv6 = ":" in self.tunnel_ip
        for each in await self.session.dump(InterfaceDump()):
            addresses = await self.session.dump(AddressDump(each.sw_if_index, is_ipv6))
            if any(str(found.prefix.ip) == self.tunnel_ip for found in addresses):
                return each
        return None

    async def close(self) -> None:
        """Let go of everything; VPP and what is in it go on, unless it is to end with us."""
        if self._watch is not None:
            await self._watch.close()
            self._watch = None
        await self._answering.close()
        await self.pool.close()
        await self.session.close()
        if self.process is not None:
            await (self.process.stop() if self.options.ends_vpp else self.process.release())
        await self.netlink.close()
        self._ports.close()
        self._stats.reset()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when another VPP answers: nothing of ours is in it."""
        self._lost.append(callback)

    def on_node_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when ``node_items`` would be others than before."""
        self._node_changed.append(callback)

    def _on_up(self, epoch: int) -> None:
        _log.warning("another VPP answers", epoch=epoch)
        self._known.clear()
        self.pool.empty()
        self._waiting.forget()
        self._stats.reset()
        for callback in self._lost:
            callback()

    def _on_underlay(self, underlay: Underlay) -> None:
        _log.info("the uplink changed", link=underlay.link, mtu=underlay.mtu, addresses=underlay.addresses)
        self._underlay = underlay
        self.tunnel_mtu = underlay.mtu
        for callback in self._node_changed:
            callback()

    # items

    def node_items(self) -> tuple[Item, ...]:
        """The uplink, unless VPP has one of its own."""
        if self._underlay is None:
            return ()
        found = self._underlay
        facts = UplinkFacts(
            link=found.link,
            mac=found.mac,
            mtu=found.mtu,
            tunnel_ip=self.tunnel_ip,
            addresses=found.addresses,
            routes=found.routes,
            neighbours=found.neighbours,
            ports=self.options.ports,
            ring=self._uplink_ring,
        )
        return uplink_items(facts)

    def items(self, intent: Intent) -> tuple[Item, ...]:
        """What one connection is made of."""
        return connection_items(intent, self._facts)

    def offers(self, payload: str) -> tuple[tuple[str, str], ...]:
        """Kernel interfaces here, a tunnel to other nodes."""
        return _OFFERS.get(payload, ())

    def refusal(self, mechanism: Mechanism, payload: str) -> NsmError | None:
        """Whatever is not offered."""
        if payload not in _OFFERS:
            return invalid("payload", f"one of {', '.join(_OFFERS)}", payload)
        offers = self.offers(payload)
        if (mechanism.cls, mechanism.type) in offers:
            return None
        expected = " or ".join(f"{cls}/{kind}" for cls, kind in offers)
        return invalid(
            "mechanism.type", f"{expected} for payload {payload}", f"{mechanism.cls}/{mechanism.type}"
        )

    # packets

    async def settle(self, intent: Intent, timeout: float) -> None:  # noqa: ASYNC109  # the caller's deadline
        """Links up; towards the endpoint also a handshake, which the far side can answer by now.

        A handshake that a Go forwarder waits for is looked after behind the answer.

        An AF_PACKET interface has its link from the moment it is made, so only taps are waited for.
        """
        try:
            async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                for end, role in ((intent.client, CLIENT), (intent.endpoint, ENDPOINT)):
                    key = interface_key(intent, end, role, self._facts)
                    index = self._handle(key)
                    if isinstance(end, KernelEnd) and self._facts.taps:
                        group.create_task(self._waiting.link_up(index))
                    elif isinstance(end, WireguardEnd) and role == ENDPOINT:
                        peer = self._handle(_peer_key(key, end))
                        group.create_task(self._waiting.established(index, peer))
                    elif isinstance(end, WireguardEnd) and end.shared:
                        self._answering.look_after(key, _peer_key(key, end))
        except TimeoutError:
            what = "the far side's WireGuard did not shake hands" if _is_wireguard(intent) else "no link"
            message = f"no packets can flow after {timeout:.3g} s: {what}"
            raise NsmError(Code.DEADLINE_EXCEEDED, message) from None
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def _handle(self, key: Key) -> int:
        try:
            return self._known[key]
        except KeyError:
            raise NsmError(Code.UNAVAILABLE, f"VPP has no {key} at this moment") from None

    async def counters(self, intents: Sequence[Intent]) -> Mapping[str, tuple[Counters, Counters]]:
        """From the stats segment, all at one moment; a connection that VPP does not have is left out."""
        places: dict[str, tuple[int, int]] = {}
        for intent in intents:
            ends = ((intent.client, CLIENT), (intent.endpoint, ENDPOINT))
            client, endpoint = (
                self._known.get(interface_key(intent, end, role, self._facts)) for end, role in ends
            )
            if client is not None and endpoint is not None:
                places[intent.id] = (client, endpoint)
        if not places:
            return {}
        found = await self._stats.read({index for pair in places.values() for index in pair})
        return {name: (found[client], found[endpoint]) for name, (client, endpoint) in places.items()}


def _ring(size: tuple[int, int] | None, otherwise: Ring) -> Ring:
    return Ring(*size) if size else otherwise


def _is_wireguard(intent: Intent) -> bool:
    return isinstance(intent.endpoint, WireguardEnd)


def _peer_key(interface: Key, end: WireguardEnd) -> Key:
    return WireguardPeer(interface, end.remote_public_key, end.remote, end.remote_port).key


def _lasting_path(netns: NetnsId) -> str:
    """A path to ``netns`` that is good without this process."""
    own = f"/proc/{os.getpid()}/"
    for path in candidates(netns):
        if not path.startswith(own):
            return path
    message = "the network namespace has no path that outlives the agent: mount it or keep a process in it"
    raise NsmError(Code.FAILED_PRECONDITION, message, field="mechanism.parameters.inodeURL")
