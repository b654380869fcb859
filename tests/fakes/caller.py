"""A client of the mesh inside a test: real identity, real sockets, and every liberty with what it sends."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from nsm.model.connection import Connection, NetworkServiceRequest
from nsm.model.errors import NsmError
from nsm.model.identity import Svid, Token, TokenSource
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment
from nsm.service.config import NsmSettings
from nsm.service.daemon import Node, open_node
from nsm.service.fds import inode_url
from nsm.transport.channel import Channels
from nsm.wire.methods import NETWORK_SERVICE_CLOSE, NETWORK_SERVICE_REQUEST


def kernel(netns: FilePath, interface: str = "nsm-1") -> tuple[Mechanism, int]:
    """A kernel preference, and the descriptor to send beside it; the caller closes it."""
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    return Mechanism(LOCAL, KERNEL, {INODE_URL: inode_url(fd), INTERFACE_NAME: interface}), fd


@dataclass
class Caller:
    """Calls one URL under ``name``; everything it asks for stands in what it is given."""

    name: str
    url: str
    node: Node
    fds: list[int] = field(default_factory=list)
    tokens: TokenSource | None = None

    def first(self, service: str, connection_id: str = "") -> Connection:
        """What a well-behaved client sends first."""
        own = connection_id or f"{self.name}-0"
        path = Path(0, (PathSegment(name=self.name, id=own),))
        return Connection(id=own, network_service=service, path=path)

    def kernel(self, netns: FilePath, interface: str = "nsm-1") -> Mechanism:
        """A kernel preference whose descriptor goes beside the next Request."""
        mechanism, fd = kernel(netns, interface)
        self.fds.append(fd)
        return mechanism

    async def request(
        self, connection: Connection, *preferences: Mechanism, seconds: float = 15.0
    ) -> Connection:
        """One Request; descriptors of ``kernel`` leave with it and are closed. NsmError as answered."""
        fds, self.fds = self.fds, []
        try:
            request = NetworkServiceRequest(connection, preferences)
            channel = self.node.channels.get(self.url)
            return (await channel.unary(NETWORK_SERVICE_REQUEST, request, timeout=seconds, fds=fds)).value
        finally:
            for fd in fds:
                os.close(fd)

    async def close(self, connection: Connection, *, seconds: float = 15.0) -> None:
        """One Close."""
        channel = self.node.channels.get(self.url)
        await channel.unary(NETWORK_SERVICE_CLOSE, connection, timeout=seconds)

    async def refused(
        self, connection: Connection, *preferences: Mechanism, seconds: float = 15.0
    ) -> NsmError:
        """The error of a Request that must fail."""
        try:
            answer = await self.request(connection, *preferences, seconds=seconds)
        except NsmError as error:
            return error
        raise AssertionError(f"it was answered: {answer}")


@asynccontextmanager
async def caller(
    name: str, url: str, identities: FilePath, *, tokens: Any = None, endpoint: str = ""
) -> AsyncIterator[Caller]:
    """A caller with the identity ``name`` of the embedded service; ``tokens(node)`` may replace its tokens.

    ``endpoint``: the Workload API to ask instead, which knows the process by other means.
    """
    settings = NsmSettings(
        name=name, identity_dir=str(identities), spiffe_endpoint_socket=endpoint, dial_timeout=5.0
    )
    async with open_node(settings) as opened:
        node = opened
        if tokens is not None:
            node = replace(opened, channels=Channels(opened.identity, tokens(opened), dial_timeout=5.0))
        try:
            yield Caller(name, url, node)
        finally:
            await node.channels.close()


@dataclass
class FixedTokens:
    """A ``TokenSource`` that always hands out the same text, whoever signed it."""

    text: str
    expires: int
    spiffe_id: str = ""

    def token(
        self, audience: str | None, peer_not_after: float | None = None, svid: Svid | None = None
    ) -> Token:
        return Token(self.text, self.expires)


__all__ = ["Caller", "FixedTokens", "caller", "kernel"]
