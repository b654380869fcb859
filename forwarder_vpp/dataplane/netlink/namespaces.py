"""The node and the workloads' namespaces: known by inode and cookie, addressed by an id the kernel keeps for us.

Each workload's namespace gets an *nsid* in the node's namespace (RTM_NEWNSID), a number made of its cookie, so that
the next agent knows it again. It does not keep the namespace alive; links there can be made, listed and removed by
it without a descriptor; the kernel's RTM_DELNSID says when it is gone. What no nsid can address (routes, rules,
neighbours, sysctls) is done by a worker thread that enters the namespace for one piece of work.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Final, TypeVar

import structlog

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.netlink import links, places, syscalls
from forwarder_vpp.dataplane.netlink.access import NETNS_FIELD, NODE, nsid_of, unreachable
from forwarder_vpp.dataplane.netlink.events import LinkEvents
from forwarder_vpp.dataplane.netlink.links import AT_NODE, Link
from forwarder_vpp.dataplane.netlink.nsids import assign, known, number_for
from forwarder_vpp.dataplane.netlink.session import GONE, NetlinkError, Session
from forwarder_vpp.dataplane.netlink.tags import Tags
from nsm.model.errors import invalid

ResultT = TypeVar("ResultT")

_WORKERS: Final = 2
"""The kernel has one lock for all links: more threads only spin on it, and keep VPP from it (docs/vpp-notes.md)."""
_REMOVERS: Final = 16
_log = structlog.get_logger(__name__)


class NodeNetlink:
    """Implements ``Netlink`` and the contract's ``Namespaces``; between ``start`` and ``close``.

    ``writes`` counts the netlink messages that changed something, the removals included.
    """

    def __init__(self, instance: str) -> None:
        self.tags = Tags(instance)
        self.writes = 0
        self._home = -1
        self._own = NODE
        self._session: Session | None = None
        self._events: LinkEvents | None = None
        self._ids: dict[NetnsId, int] = {}
        self._paths: dict[NetnsId, str] = {}
        self._callbacks: list[Callable[[NetnsId], None]] = []
        self._workers = ThreadPoolExecutor(_WORKERS, "netlink", self._go_home)
        self._removers = ThreadPoolExecutor(_REMOVERS, "netlink-remove", self._go_home)
        self._removals: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Learn which namespaces have ids and which links are ours, remove half-made ones; begin to listen."""
        self._home = syscalls.open_netns(syscalls.OWN_NETNS)
        self._own = syscalls.identity(self._home)
        self._session = Session()
        self._events = LinkEvents(self._nsid_gone)
        for link in await self.at_node(self._all_links):
            if link.tag is None:
                await self.remove(link)
            elif link.nsid != AT_NODE:
                self._ids.setdefault(link.tag.netns, link.nsid)

    async def close(self) -> None:
        """Stop listening; what exists stays. Removals under way are awaited."""
        if self._removals:
            await asyncio.wait(self._removals)
        if self._events is not None:
            self._events.close()
            self._events = None
        self._workers.shutdown()
        self._removers.shutdown()
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._home >= 0:
            os.close(self._home)
            self._home = -1

    # the contract's Namespaces

    def learn(self, path: str) -> NetnsId:
        """The namespace at ``path``; it gets an id at the node. NsmError INVALID_ARGUMENT if it is none."""
        try:
            fd = syscalls.open_netns(path)
        except OSError as error:
            raise invalid(
                NETNS_FIELD, "a network namespace", f"{path} ({error.strerror or error})"
            ) from error
        try:
            netns = syscalls.identity(fd)
            self._paths[netns] = path
            if netns not in self._ids and netns != self._own:
                session = self._at_home()
                before = session.writes
                self._ids[netns] = assign(session, fd, netns)
                self.writes += session.writes - before
        finally:
            os.close(fd)
        return netns

    def on_gone(self, callback: Callable[[NetnsId], None]) -> None:
        """Call ``callback`` with each known namespace that ends."""
        self._callbacks.append(callback)

    async def remove_foreign(self, netns: NetnsId, alias: str) -> int:
        """Remove the links of that alias from ``netns``; how many. NsmError FAILED_PRECONDITION if it is gone."""
        nsid = nsid_of(self, netns)

        def work(session: Session) -> int:
            found = [link for link in links.dump(session, nsid, self.tags) if link.alias == alias]
            for link in found:
                _remove(link, session)
            return len(found)

        return await self.at_node(work)

    # Netlink

    def nsid(self, netns: NetnsId) -> int | None:
        """The id of ``netns`` at the node, -1 for the node's own; ``None`` = gone, or never seen."""
        if netns in {NODE, self._own}:
            return AT_NODE
        if netns not in self._ids and number_for(netns) in known(self._at_home()):
            self._ids[netns] = number_for(netns)
        return self._ids.get(netns)

    def present(self, netns: NetnsId) -> bool:
        """Whether ``netns`` still exists."""
        return self.nsid(netns) is not None

    async def at_node(self, work: Callable[[Session], ResultT]) -> ResultT:
        """``work`` in the node's namespace."""
        return await self._on_thread(self._workers, partial(self._counted, work))

    async def inside(self, netns: NetnsId, work: Callable[[Session], ResultT]) -> ResultT:
        """``work`` on a thread that stands in ``netns``, with a session there."""

        def there() -> ResultT:
            with self._opened(netns) as fd, syscalls.standing_in(fd):
                return self._counted(work)

        return await self._on_thread(self._workers, there)

    async def with_fds(
        self, namespaces: Sequence[NetnsId], work: Callable[[Session, Mapping[NetnsId, int]], ResultT]
    ) -> ResultT:
        """``work`` at the node with a descriptor of each namespace, closed afterwards."""

        def here() -> ResultT:
            with ExitStack() as stack:
                fds = {netns: stack.enter_context(self._opened(netns)) for netns in namespaces}
                return self._counted(lambda session: work(session, fds))

        return await self._on_thread(self._workers, here)

    async def links(self) -> Sequence[Link]:
        """Every link with our mark, at the node and in every namespace that has an id there."""
        return [link for link in await self.at_node(self._all_links) if link.tag is not None]

    async def remove(self, link: Link) -> None:
        """Delete a link; returns when it is no longer to be seen, the kernel's clean-up (15 ms) goes on behind."""
        assert self._events is not None
        unseen = self._events.expect_gone(link.nsid, link.index)
        work = partial(self._counted, partial(_remove, link))
        done = asyncio.ensure_future(self._on_thread(self._removers, work))
        self._removals.add(done)
        done.add_done_callback(partial(self._removed, link))
        try:
            await asyncio.wait((unseen, done), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._events.forget(link.nsid, link.index)
        if done.done():
            done.result()

    def _go_home(self) -> None:
        syscalls.setns(self._home)

    def _removed(self, link: Link, done: asyncio.Future[None]) -> None:
        self._removals.discard(done)
        if not done.cancelled() and done.exception() is not None:
            _log.warning("a link could not be removed", link=link.name, error=str(done.exception()))

    async def _on_thread(self, pool: ThreadPoolExecutor, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _counted(self, work: Callable[[Session], ResultT]) -> ResultT:
        with Session() as session:
            try:
                return work(session)
            finally:
                self.writes += session.writes

    def _all_links(self, session: Session) -> list[Link]:
        found = []
        for nsid in (AT_NODE, *known(session)):
            try:
                here = links.dump(session, nsid, self.tags)
                found += [link for link in here if link.tag is not None or link.is_half_made(self.tags)]
            except NetlinkError as error:
                if error.errno not in GONE and nsid == AT_NODE:
                    raise
                _log.info("namespace ended while it was looked at", nsid=nsid, reason=str(error))
        return found

    @contextmanager
    def _opened(self, netns: NetnsId) -> Iterator[int]:
        fd = self._open(netns)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, netns: NetnsId) -> int:
        hint = self._paths.get(netns)
        for path in chain(
            (hint,) if hint else (), places.candidates(netns)
        ):  # lazy: the scan is the last resort
            with suppress(OSError):  # closed or ended meanwhile: the next candidate
                fd = syscalls.open_netns(path)
                if syscalls.identity(fd) == netns:
                    self._paths[netns] = path
                    return fd
                os.close(fd)
        raise unreachable(netns)

    def _at_home(self) -> Session:
        assert self._session is not None, "not started"
        return self._session

    def _nsid_gone(self, nsid: int) -> None:
        gone = [netns for netns, number in self._ids.items() if number == nsid]
        for netns in gone:
            del self._ids[netns]
            self._paths.pop(netns, None)
            for callback in self._callbacks:
                callback(netns)


def _remove(link: Link, session: Session) -> None:
    try:
        session.change_all([(links.remove(link.nsid, link.index), f"to remove {link.name}")], ignore=GONE)
    except NetlinkError as error:  # EINVAL: no namespace has that id any more, so the link has gone with it
        if error.errno != errno.EINVAL or link.nsid in known(session):
            raise
