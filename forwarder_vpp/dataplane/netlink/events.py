"""What the kernel tells unasked: links that went, namespaces that ended."""

import asyncio
import errno
import struct
from collections.abc import Callable
from typing import Final

import structlog

from forwarder_vpp.dataplane.netlink import links, nsids, wire
from forwarder_vpp.dataplane.netlink.session import Session, parsed

_SOL_NETLINK: Final = 270
_NSID: Final = struct.Struct("=i")
_DATAGRAM: Final = 1 << 16
_BATCH: Final = 64
_log = structlog.get_logger(__name__)


class LinkEvents:
    """Listens to links and namespace ids, in every namespace that has an id at the node.

    ``gone`` is called with each id that ends. If the kernel had to drop events, the ids are compared afresh.
    """

    def __init__(self, gone: Callable[[int], None]) -> None:
        self._gone = gone
        self._session = Session()
        self._socket = self._session.listen(wire.RTNLGRP_LINK, wire.RTNLGRP_NSID)
        self._waiting: dict[tuple[int, int], asyncio.Future[None]] = {}
        with Session() as session:
            self._ids = set(nsids.known(session))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._socket)
        self._session.close()

    def expect_gone(self, nsid: int, index: int) -> asyncio.Future[None]:
        """Done when that link is no longer to be seen."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting[nsid, index] = future
        return future

    def forget(self, nsid: int, index: int) -> None:
        """No longer of interest."""
        self._waiting.pop((nsid, index), None)

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_DATAGRAM, 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._compare()
                continue
            nsid = links.AT_NODE
            for level, _, value in ancillary:
                if level == _SOL_NETLINK:
                    (nsid,) = _NSID.unpack_from(value)
            self._handle(data, nsid)

    def _handle(self, data: bytes, nsid: int) -> None:
        for kind, _, _, body in parsed(data):
            if kind == wire.RTM_DELLINK:
                future = self._waiting.get((nsid, links.index_in(body)))
                if future is not None and not future.done():
                    future.set_result(None)
            elif kind == wire.RTM_NEWNSID:
                self._ids.add(nsids.number_in(body))
            elif kind == wire.RTM_DELNSID:
                self._ids.discard(nsids.number_in(body))
                self._gone(nsids.number_in(body))

    def _compare(self) -> None:
        with Session() as session:
            now = set(nsids.known(session))
        _log.warning("netlink events were lost, namespaces compared afresh", ended=len(self._ids - now))
        for nsid in self._ids - now:
            self._gone(nsid)
        self._ids = now
