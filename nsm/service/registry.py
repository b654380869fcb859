"""The client side of a registry: Register, Unregister, Find and watch (reference §3.13, §4.4).

``nsm.service.registration`` keeps an endpoint registered with it.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final, TypeVar

from nsm.model.endpoint import (
    EndpointQuery,
    EndpointResponse,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm.model.errors import NsmError, invalid
from nsm.policy.rules import RegistryPolicies, is_unshown_key
from nsm.service.registration import Registration
from nsm.service.sockets import UNIX, Sockets
from nsm.session.registry_path import RegistryPath, path_metadata, read_path
from nsm.transport.channel import Channel, Channels
from nsm.wire import methods
from nsm.wire.method import Method

__all__ = ["Registration", "RegistryClient"]

INODE: Final = "inode://"

Req = TypeVar("Req")
Res = TypeVar("Res")


class RegistryClient:
    """Calls one registry, or the manager in front of it.

    Every method raises the registry's NsmError, UNAVAILABLE where it cannot be reached.
    """

    def __init__(
        self, channels: Channels, url: str, *, policies: RegistryPolicies | None = None, timeout: float = 15.0
    ) -> None:
        """``timeout``: seconds each call but a watch may take; ``policies`` judge the path of every answer."""
        self.url = url
        self._channels = channels
        self._policies = policies
        self._timeout = timeout
        self._sockets = Sockets(channels)

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        """Every service the query matches."""
        request = NetworkServiceQuery(query)
        channel = self._channels.get(self.url)
        async with aclosing(channel.stream(methods.NS_FIND, request, timeout=self._timeout)) as answers:
            return [answer.network_service async for answer in answers]

    async def find_endpoints(self, query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        """Every endpoint the query matches; one whose socket came as a descriptor has ``unix:///proc/self/fd/N``.

        The client keeps the descriptor open; the same socket has the same URL each time.
        """
        request = EndpointQuery(query)
        channel = self._channels.get(self.url)
        async with aclosing(channel.stream(methods.NSE_FIND, request, timeout=self._timeout)) as answers:
            found = [answer.network_service_endpoint async for answer in answers]
        return [await self._dialable(channel, endpoint) for endpoint in found]

    async def watch_services(self, query: NetworkService) -> AsyncGenerator[NetworkServiceResponse, None]:
        """What matches now, then every change, until the stream breaks: it ends, or raises the NsmError."""
        request = NetworkServiceQuery(query, watch=True)
        async with aclosing(self._channels.get(self.url).stream(methods.NS_FIND, request)) as answers:
            async for answer in answers:
                yield answer

    async def watch_endpoints(
        self, query: NetworkServiceEndpoint, *, sockets: bool = True
    ) -> AsyncGenerator[EndpointResponse, None]:
        """What matches now, then every change, as ``watch_services``.

        ``sockets=False``: URLs stay as they came, for those who only want to know that something is registered.
        """
        request = EndpointQuery(query, watch=True)
        channel = self._channels.get(self.url)
        async with aclosing(channel.stream(methods.NSE_FIND, request)) as answers:
            async for answer in answers:
                if answer.deleted or not sockets:
                    yield answer
                else:
                    endpoint = await self._dialable(channel, answer.network_service_endpoint)
                    yield replace(answer, network_service_endpoint=endpoint)

    async def register_service(self, service: NetworkService) -> NetworkService:
        """Register as the first hop; the answer has the payload the registry chose."""
        return (await self.pass_on(methods.NS_REGISTER, service, RegistryPath()))[0]

    async def unregister_service(self, service: NetworkService) -> None:
        """Remove it; an unknown name is no error."""
        await self.pass_on(methods.NS_UNREGISTER, service, RegistryPath())

    async def register_endpoint(self, endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint:
        """Register as the first hop; a ``unix://`` URL leaves as the descriptor of its socket file.

        The answer has the URL as given, and the expiration the registry chose.
        """
        return await self._write_endpoint(methods.NSE_REGISTER, endpoint)

    async def unregister_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        """Remove it; an unknown name is no error."""
        await self.pass_on(methods.NSE_UNREGISTER, endpoint, RegistryPath())

    async def pass_on(
        self, method: Method[Req, Res], subject: Req, path: RegistryPath, *, fds: tuple[int, ...] = ()
    ) -> tuple[Res, RegistryPath]:
        """One Register or Unregister on ``path``, judged by the client's policies when it comes back.

        Once more if the registry rotated its SVID since we connected.
        """
        channel = self._channels.get(self.url)
        metadata = path_metadata(path)
        for is_last in (False, True):
            reply = await channel.unary(method, subject, timeout=self._timeout, metadata=metadata, fds=fds)
            returned = read_path(reply.metadata) or path
            try:
                if self._policies is not None:
                    self._policies.client(returned.tokens, returned.index, reply.peer.leaf)
            except NsmError as error:
                if is_last or not is_unshown_key(error):
                    raise
                channel.outdate(reply.peer)
            else:
                return reply.value, returned
        raise AssertionError("the last try returns or raises")

    async def close(self) -> None:
        """Close the endpoint sockets; the channels belong to whoever made them."""
        await self._sockets.close()

    async def _write_endpoint(
        self,
        method: Method[NetworkServiceEndpoint, NetworkServiceEndpoint],
        endpoint: NetworkServiceEndpoint,
    ) -> NetworkServiceEndpoint:
        fd = await self._socket_of(endpoint.url)
        if fd is None:
            return (await self.pass_on(method, endpoint, RegistryPath()))[0]
        try:
            sent = replace(endpoint, url=inode_url(fd))
            answer, _ = await self.pass_on(method, sent, RegistryPath(), fds=(fd,))
        finally:
            os.close(fd)
        return replace(answer, url=endpoint.url)

    async def _socket_of(self, url: str) -> int | None:
        """An O_PATH descriptor of a unix URL's socket where the registry can take one."""
        if not url.startswith(UNIX) or not (await self._channels.get(self.url).peer()).passes_fds:
            return None
        return open_socket(url)

    async def _dialable(self, channel: Channel, endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint:
        if not endpoint.url.startswith(INODE):
            return endpoint
        return replace(endpoint, url=await self._sockets.url(channel, endpoint.url, self._timeout))


def open_socket(url: str) -> int:
    """An O_PATH descriptor of the socket file of ``unix:///path``. NsmError INVALID_ARGUMENT if there is none."""
    path = url.removeprefix(UNIX)
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise invalid("network_service_endpoint.url", f"a socket that exists ({error})", url) from error


def inode_url(fd: int) -> str:
    """``inode://<st_dev>/<st_ino>``, both decimal (trap 23)."""
    status = os.fstat(fd)
    return f"{INODE}{status.st_dev}/{status.st_ino}"
