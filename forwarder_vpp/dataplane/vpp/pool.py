"""Pairs that wait for a connection: a veth at the node whose far end VPP has rings on already.

What costs a local Request its time is the kernel's grace periods while VPP makes two rings, one after the other. A
waiting pair has that behind it; what is left is to hand its near end over (docs/adr/0007). Pairs are made one at a
time, while nothing else is done to links, and never on a Request's way.

Whose a pair is stands on it: alias and tag name the pool, the forwarder and the sizes of its rings until it is handed
over, and the connection afterwards. A start reads just that: whole pairs of the right shape are the pool, everything
else of a pool is removed.
"""

import asyncio
import contextlib
import errno
import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.netlink import ready
from forwarder_vpp.dataplane.netlink.access import Netlink
from forwarder_vpp.dataplane.netlink.links import Link
from forwarder_vpp.dataplane.netlink.session import NetlinkError
from forwarder_vpp.dataplane.netlink.veth import Veth
from nsm.model.errors import NsmError

from .messages import af_packet as api
from .messages.interface import InterfaceDump, InterfaceTag
from .objects.af_packet import Index, Ring, creation, delete
from .objects.tags import OWNED, READY, owner_of, role_of, tag_of

REST: Final = 0.1
"""Seconds without work on links after which whatever was asked for has been answered."""

RETRY: Final = 5.0
"""Seconds after a failure."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a pair must have to be of use: ``mac`` is VPP's on it."""

    ring: Ring
    mac: str


@dataclass(frozen=True, slots=True)
class Ready:
    """One pair in the pool."""

    pair: ready.Pair
    index: Index


@dataclass
class WarmPool:
    """Keeps ``size`` pairs waiting (0: none, and what is left of an earlier pool goes).

    ``instance`` is the forwarder's. Between ``start`` and ``close``, which leaves no pair behind.
    """

    vpp: Vpp
    netlink: Netlink
    shape: Shape
    size: int
    instance: str
    _ready: list[Ready] = field(default_factory=list, init=False)
    _handed: dict[str, Index] = field(default_factory=dict, init=False)
    _condemned: list[tuple[str, Link | None]] = field(default_factory=list, init=False)
    _busy: int = field(default=0, init=False)
    _last: float = field(default=0.0, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _closing: bool = field(default=False, init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    # life

    async def start(self) -> None:
        """Take over what waits, remove what is left; pairs are made from now on."""
        await self._adopt()
        self._last = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name="warm-pool")

    async def close(self) -> None:
        """Make no more and remove those that wait, as far as VPP and kernel let us; one under way is awaited."""
        if self._task is None:
            return
        self._closing = True
        self._changed.set()
        await self._task
        self._task = None
        self.empty()
        while self._condemned:
            try:
                await self._remove_one()
            except NsmError as error:
                _log.warning("pool.left_behind", link=self._condemned.pop(0)[0], reason=str(error))

    def empty(self) -> None:
        """VPP may be another one: no pair is of use, those that wait go."""
        self._condemned += [(each.pair.far.name, each.pair.far) for each in self._ready]
        self._ready.clear()
        self._handed.clear()
        self._changed.set()

    async def filled(self, count: int) -> None:
        """Return when ``count`` pairs wait."""
        await self._until(lambda: len(self._ready) >= count)

    # handing over

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """While it lasts and for ``REST`` afterwards no pair is made: links are worked on."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._last = asyncio.get_running_loop().time()
            self._changed.set()

    async def hand_over(self, item: Veth) -> tuple[Link, Link] | None:
        """A waiting pair as ``item``; ``None`` if none waits, or the one that did was not to be had."""
        if not self._ready:
            return None
        taken = self._ready.pop(0)
        self._changed.set()
        far = taken.pair.far
        try:
            ends = await ready.hand_over(self.netlink, taken.pair, item)
        except NsmError as error:
            _log.info("pool.not_handed_over", link=far.name, reason=str(error))
            if isinstance(error, NetlinkError) and error.errno == errno.EEXIST:
                self._add(taken)
            else:
                self._condemn(far.name, far)
            return None
        except BaseException:
            self._condemn(far.name, far)
            raise
        self._handed[far.name] = taken.index
        return ends

    def claim(self, link: str) -> Index | None:
        """VPP's interface on a pair that was handed over; it is the caller's from now on."""
        return self._handed.pop(link, None)

    async def abandon(self, link: str) -> None:
        """A pair that was handed over is about to go: VPP's interface, if nobody claimed it, goes first."""
        if self._handed.pop(link, None) is not None:
            await delete(self.vpp, link)

    # in the background

    async def _run(self) -> None:
        while not self._closing:
            try:
                await self._step()
            except NsmError as error:
                _log.warning("pool.failed", reason=str(error))
            except Exception:  # noqa: BLE001 - a fault of ours costs the pool, not the forwarder
                _log.exception("pool.broke")
            else:
                continue
            await self._until(lambda: self._closing, RETRY)

    async def _step(self) -> None:
        if self._condemned:
            await self._remove_one()
        elif len(self._ready) >= self.size:
            await self._until(lambda: bool(self._condemned) or len(self._ready) < self.size)
        elif self._busy:
            await self._until(lambda: not self._busy)
        elif (rest := self._rest()) > 0:
            await self._until(lambda: self._busy > 0, rest)
        else:
            await self._make()

    def _rest(self) -> float:
        """Seconds that links have to be left alone yet."""
        return self._last + REST - asyncio.get_running_loop().time()

    async def _until(self, come: Callable[[], bool], seconds: float | None = None) -> None:
        """Return when ``come`` holds, after ``seconds``, or at the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not come() and not self._closing:
                    self._changed.clear()
                    await self._changed.wait()

    async def _make(self) -> None:
        """One pair; what was made of one that fails is removed."""
        name = secrets.token_hex(4)
        owner = f"{self._owner}-{name}"
        epoch = self.vpp.epoch
        pair = await ready.make(self.netlink, owner, name)
        far = pair.far
        try:
            request = creation(far.name, self.shape.mac, self.shape.ring)
            made = await self.vpp.create(request, lambda _: api.AfPacketDelete(host_if_name=far.name))
            tag = tag_of(owner, READY)
            await self.vpp.call(InterfaceTag(is_add=True, sw_if_index=made.sw_if_index, tag=tag))
        except BaseException:
            self._condemn(far.name, far)
            raise
        if self.vpp.epoch != epoch:
            self._condemn(far.name, far)
            return
        self._add(Ready(pair, Index(made.sw_if_index, far.name)))
        _log.debug("pool.made", link=far.name, waiting=len(self._ready))

    def _add(self, pair: Ready) -> None:
        self._ready.append(pair)
        self._changed.set()

    def _condemn(self, name: str, link: Link | None) -> None:
        self._condemned.append((name, link))
        self._changed.set()

    async def _remove_one(self) -> None:
        """The first of the condemned; it stays one of them until it has gone."""
        name, link = self._condemned[0]
        try:
            await delete(self.vpp, name)
        finally:
            if link is not None:
                await self.netlink.remove(link)
        self._condemned.pop(0)

    # what is there

    @property
    def _owner(self) -> str:
        """What the owner of every pair of this pool begins with: only the pair's own name follows."""
        ring, instance = self.shape.ring, hashlib.sha256(self.instance.encode()).hexdigest()[:8]
        return f"{OWNED}-pool-{instance}-{ring.frame}x{ring.frames}f{ring.flags}"

    async def _adopt(self) -> None:
        pairs, broken = ready.found(await self.netlink.links())
        in_vpp = await self._interfaces()
        for pair in pairs:
            owner, index = in_vpp.get(pair.far.name, ("", None))
            is_ours = owner == pair.owner and owner.startswith(f"{self._owner}-")
            if index is not None and is_ours and len(self._ready) < self.size:
                self._ready.append(Ready(pair, index))
                del in_vpp[pair.far.name]
            else:
                self._condemned.append((pair.far.name, pair.far))
        self._condemned += [(link.name, link) for link in broken]
        known = {name for name, _ in self._condemned}
        self._condemned += [(name, None) for name in in_vpp if name not in known]
        try:
            while self._condemned:
                await self._remove_one()
        except NsmError as error:  # it is tried again in the background
            _log.warning("pool.failed", reason=str(error))
        _log.info("pool.started", size=self.size, adopted=len(self._ready))

    async def _interfaces(self) -> dict[str, tuple[str, Index | None]]:
        """By link: owner and interface of everything in VPP that no connection has, on a pair of a pool.

        One without a tag was cut short in its making; ``None`` stands for one with another MAC than VPP's.
        """
        common = {each.sw_if_index: each for each in await self.vpp.dump(InterfaceDump())}
        found: dict[str, tuple[str, Index | None]] = {}
        for each in await self.vpp.dump(api.AfPacketDump()):
            name, own = each.host_if_name, common.get(each.sw_if_index)
            if own is None or not name.startswith(ready.FAR_NAMES):
                continue
            if own.tag == "" or role_of(own.tag) == READY:
                fits = own.l2_address.hex(":") == self.shape.mac
                found[name] = owner_of(own.tag), Index(each.sw_if_index, name) if fits else None
        return found
