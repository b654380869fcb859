"""What an endpoint does with a Request: mechanism, addresses, DNS, policy routes (reference §2.3, §3.14).

Everything is decided here; the dataplane work at our end is the forwarder's. MTU and Ethernet context pass through.
"""

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
from nsm.model.connection import Connection, State
from nsm.model.context import ConnectionContext, DnsConfig, IpContext
from nsm.model.errors import invalid
from nsm.model.mechanism import INODE_URL
from nsm.service.hop import Closing, Incoming
from nsm.session.path import trim

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

    def adopt(self) -> list[tuple[Connection, float]]:
        """Take over the leases of before a restart: their connections, on our segment, and the seconds each has left.

        LeaseFileError when the file is broken: nothing is taken over then.
        """
        if self._leases is None:
            return []
        now = self._clock()
        adopted: list[tuple[Connection, float]] = []
        for connection, entry in self._leases.load().items():
            if entry.expires > now and self._ipam.install(connection, entry.lease):
                adopted.append((entry.connection, entry.expires - now))
                if self._idle:
                    self._idle.busy(connection)
            else:
                self._leases.forget(connection)
        return adopted

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
            context = with_dns(replace(context, ip_context=ip), self._dns)
            answer = replace(connection, mechanism=mechanism, context=context)
            await self._keep(answer)
        except BaseException:
            self._ipam.rollback(connection.id)
            raise
        self._ipam.confirm(connection.id)
        if self._idle:
            self._idle.busy(connection.id)
        return answer

    async def close(self, closing: Closing) -> None:
        """Give its addresses back."""
        await self._release(closing.connection.id)

    def stop(self) -> None:
        """No more timers."""
        if self._idle:
            self._idle.stop()

    async def _keep(self, answer: Connection) -> None:
        if self._leases is None:
            return
        previous = answer.route.previous
        expires = previous.expires if previous and previous.expires is not None else 0
        lease = self._ipam.leases[answer.id]
        assert answer.mechanism is not None
        lasting = replace(trim(answer), mechanism=answer.mechanism.without(INODE_URL), state=State.UP)
        await self._leases.put(answer.id, Kept(lease, expires / 1e9, lasting))

    async def _release(self, connection: str) -> None:
        self._ipam.release(connection)
        if self._idle:
            self._idle.gone(connection)
        if self._leases is None:
            return
        try:
            await self._leases.remove(connection)
        except OSError as error:
            structlog.get_logger().error("lease.not_removed", connection=connection, reason=str(error))


def _check_mtu(mtu: int, ip: IpContext) -> None:
    has_v6 = any(":" in text for text in (*ip.src_ip_addrs, *ip.dst_ip_addrs))
    if has_v6 and 0 < mtu < MIN_MTU_V6:
        raise invalid("connection.context.MTU", f"at least {MIN_MTU_V6} bytes with IPv6 addresses", mtu)
