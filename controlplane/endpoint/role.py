"""What an endpoint does with a Request: mechanism, addresses, DNS, policy routes (reference §2.3, §3.14).

Everything is decided here; the dataplane work at our end is the forwarder's. MTU and Ethernet context pass through.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from controlplane.endpoint.dns import with_dns
from controlplane.endpoint.idle import Idle
from controlplane.endpoint.ipam import PointToPointIpam
from controlplane.endpoint.leases import Kept, LeaseFile
from controlplane.endpoint.mechanism import choose, complete, with_payload
from controlplane.endpoint.policy_file import PolicyFile
from controlplane.endpoint.policy_routes import with_policies
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, DnsConfig, IpContext
from nsm.model.errors import invalid
from nsm.service.hop import Closing, Incoming

MIN_MTU_V6: Final = 1280
"""Bytes; IPv6 needs links of at least that (RFC 8200 §5)."""


class EndpointRole:
    """The role of ``HopServer`` that ends a path; one per endpoint.

    ``netns`` is the namespace that gets the interfaces, as ``file:///path``.
    """

    def __init__(
        self,
        ipam: PointToPointIpam,
        *,
        netns: str,
        payload: str,
        dns: Sequence[DnsConfig] = (),
        policies: PolicyFile | None = None,
        leases: LeaseFile | None = None,
        idle: Idle | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ipam = ipam
        self._netns = netns
        self._payload = payload
        self._dns = tuple(dns)
        self._policies = policies
        self._leases = leases
        self._idle = idle
        self._clock = clock
        self._unconfirmed: dict[str, asyncio.TimerHandle] = {}

    def adopt(self) -> int:
        """Take over the leases of before a restart; how many. Each ends at its expiry unless it is refreshed.

        LeaseFileError when the file is broken: nothing is taken over then.
        """
        if self._leases is None:
            return 0
        loop = asyncio.get_running_loop()
        now = self._clock()
        for connection, entry in self._leases.load().items():
            if entry.expires > now and self._ipam.install(connection, entry.lease):
                timer = loop.call_later(entry.expires - now, self._expire, connection)
                self._unconfirmed[connection] = timer
            else:
                self._leases.forget(connection)
        return len(self._unconfirmed)

    async def request(self, incoming: Incoming) -> Connection:
        """The connection as agreed at our end; nothing has changed when it raises (NsmError)."""
        connection = with_payload(incoming.connection, self._payload)
        mechanism = choose(connection, incoming.preferences)
        mechanism = complete(mechanism, connection, incoming.stored, self._netns)
        context = connection.context or ConnectionContext()
        policies = await self._policies.policies() if self._policies else None
        ip = self._ipam.request(connection.id, context.ip)
        try:
            if policies is not None:
                ip = with_policies(ip, policies)
            _check_mtu(context.mtu, ip)
            await self._keep(connection)
        except BaseException:
            self._ipam.rollback(connection.id)
            raise
        self._ipam.confirm(connection.id)
        self._confirmed(connection.id)
        if self._idle:
            self._idle.busy(connection.id)
        context = with_dns(replace(context, ip_context=ip), self._dns)
        return replace(connection, mechanism=mechanism, context=context)

    async def close(self, closing: Closing) -> None:
        """Give its addresses back."""
        await self._release(closing.connection.id)

    def stop(self) -> None:
        """No more timers."""
        for timer in self._unconfirmed.values():
            timer.cancel()
        self._unconfirmed.clear()
        if self._idle:
            self._idle.stop()

    async def _keep(self, connection: Connection) -> None:
        if self._leases is None:
            return
        previous = connection.route.previous
        expires = previous.expires if previous and previous.expires is not None else 0
        lease = self._ipam.leases[connection.id]
        await self._leases.put(connection.id, Kept(lease, expires / 1e9))

    async def _release(self, connection: str) -> None:
        self._confirmed(connection)
        self._ipam.release(connection)
        if self._idle:
            self._idle.gone(connection)
        if self._leases is None:
            return
        try:
            await self._leases.remove(connection)
        except OSError as error:
            structlog.get_logger().error("lease.not_removed", connection=connection, reason=str(error))

    def _confirmed(self, connection: str) -> None:
        timer = self._unconfirmed.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, connection: str) -> None:
        """The client of a lease of before the restart has not come back; its row goes with the next write."""
        self._unconfirmed.pop(connection, None)
        self._ipam.release(connection)
        if self._leases is not None:
            self._leases.forget(connection)
        structlog.get_logger().info("lease.expired", connection=connection)


def _check_mtu(mtu: int, ip: IpContext) -> None:
    has_v6 = any(":" in text for text in (*ip.src_ip_addrs, *ip.dst_ip_addrs))
    if has_v6 and 0 < mtu < MIN_MTU_V6:
        raise invalid("connection.context.MTU", f"at least {MIN_MTU_V6} bytes with IPv6 addresses", mtu)
