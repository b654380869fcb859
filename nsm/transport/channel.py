"""Outbound RPCs: a channel per URL that dials when needed, and the pool of channels of a process."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import grpc.aio

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Identity, Material, Token, TokenSource
from nsm.session.tokens import token_metadata
from nsm.transport.call import no_descriptors
from nsm.transport.descriptors import parse_inode
from nsm.transport.link import Link, dial
from nsm.transport.peer import Peer
from nsm.transport.reading import answers
from nsm.transport.status import from_grpc
from nsm.transport.tls import Contexts
from nsm.transport.trust import is_trusted, withdrawn
from nsm.wire.method import Method

Req = TypeVar("Req")
Res = TypeVar("Res")

TOKEN_SHARE: Final = 0.25
"""A call's share of its token's life: what it leases ends that much earlier than the token (trap 8), and whoever keeps
it alive comes back after two thirds of the life at the latest."""

_NEVER_SENT: Final = "failed to connect to all addresses"
"""gRPC's words for a call that found its connection gone before it left: it may be made again."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[Res]):
    """An answer, the initial metadata that came with it (ASCII pairs) and who gave it."""

    value: Res
    metadata: tuple[tuple[str, str], ...]
    peer: Peer


class Channel:
    """RPCs to one URL over one connection at a time; dialled anew when it is lost and after an SVID rotation."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        tokens: TokenSource | None = None,
        *,
        dial_timeout: float = 5.0,
        contexts: Contexts | None = None,
    ) -> None:
        """``tokens``: signs the path token of every RPC. ``contexts`` are shared by the channels of a pool."""
        self.url: Final = url
        self._identity = identity
        self._tokens = tokens
        self._dial_timeout = dial_timeout
        self._contexts = contexts or Contexts(identity)
        self._link: Link | None = None
        self._links: set[Link] = set()
        self._dialling: asyncio.Task[Link] | None = None
        self._is_closed = False

    async def peer(self) -> Peer:
        """Who answers there; dials if needed.

        Raises:
            NsmError: UNAVAILABLE with the real reason.
        """
        return (await self._ready()).peer

    @property
    def connected(self) -> Peer | None:
        """Who answers there, if the next call needs no dial."""
        link = self._usable()
        return None if link is None else link.peer

    async def unary(
        self,
        method: Method[Req, Res],
        request: Req,
        *,
        timeout: float,
        metadata: Iterable[tuple[str, str]] = (),
        fds: Sequence[int] = (),
    ) -> Reply[Res]:
        """One request, one answer, within ``timeout`` seconds and TOKEN_SHARE of its token's life, dialling included.

        ``fds`` are dup'ed and leave before or with the request.

        Raises:
            NsmError: the peer's status; UNAVAILABLE with the reason the connection failed for;
                FAILED_PRECONDITION for ``fds`` over TCP.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        data = method.encode_request(request)
        pairs = tuple(metadata)
        for is_last in (False, True):
            link = await self._ready(timeout)
            with link.used():
                self._queue(link, fds)
                token = self._token(link)
                call = link.unary(method.path)(
                    data, timeout=_patience(deadline - loop.time(), token), metadata=_with(token, pairs)
                )
                try:
                    with _status(link):
                        answer: bytes = await call
                        initial = await call.initial_metadata()
                except _NeverSentError as error:
                    self._retire(link)
                    if is_last or link.pump.reason:
                        raise NsmError(Code.UNAVAILABLE, f"{self.url}: {error}") from error
                    continue
                return Reply(_decoded(method, answer, link.peer), _ascii(initial), link.peer)
        raise AssertionError("the last try returns or raises")

    async def stream(
        self,
        method: Method[Req, Res],
        request: Req,
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> AsyncGenerator[Res, None]:
        """One request, many answers; ``timeout`` ``None`` = until either side ends it. Errors as of ``unary``."""
        data = method.encode_request(request)
        link = await self._ready()
        with link.used():
            call = link.stream(method.path)(
                data, timeout=timeout, metadata=_with(self._token(link), tuple(metadata))
            )
            try:
                with _status(link):
                    async with aclosing(answers(call)) as parts:
                        async for answer in parts:
                            yield _decoded(method, answer, link.peer)
            except _NeverSentError as error:
                self._retire(link)
                raise NsmError(Code.UNAVAILABLE, f"{self.url}: {error}") from error

    async def receive_fd(self, url: str, timeout: float) -> int:
        """A dup of a descriptor that the server sent back on this channel; the caller owns it.

        Raises:
            NsmError: FAILED_PRECONDITION over TCP, DEADLINE_EXCEEDED naming the inode.
        """
        key = parse_inode(url)
        link = self._link
        if link is None:
            raise NsmError(Code.UNAVAILABLE, f"{self.url}: not connected, so {url} cannot arrive")
        if not link.peer.passes_fds:
            raise no_descriptors(url, self.url)
        received = link.pump.wire.received
        fd = await received.take(key, timeout)
        received.release(key)
        return fd

    def release_fd(self, url: str) -> None:
        """Let go of a descriptor that came with an answer and is not asked for."""
        if self._link is not None:
            self._link.pump.wire.received.release(parse_inode(url))

    def outdate(self, peer: Peer) -> None:
        """No further call on the connection to ``peer``, which no longer signs with the key it showed there."""
        if self._link is not None and self._link.peer is peer:
            self._retire(self._link)

    def end_untrusted(self, material: Material) -> None:
        """End connections to peers of a trust domain that is trusted no longer, and the calls on them."""
        for link in self._links:
            if not is_trusted(link.peer.spiffe_id, material):
                link.pump.close(withdrawn(link.peer.spiffe_id))

    async def close(self) -> None:
        """End the connection and the calls on it."""
        self._is_closed = True
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()
            await asyncio.wait([dialling])
        links, self._links, self._link = self._links, set(), None
        await asyncio.gather(*(link.close() for link in links))

    async def _ready(self, timeout: float | None = None) -> Link:
        """A link made with our newest SVID; those who ask at the same time share one dial."""
        if self._is_closed:
            raise NsmError(Code.UNAVAILABLE, f"{self.url}: this channel is closed")
        while True:
            if (link := self._usable()) is not None:
                return link
            if self._link is not None:
                self._retire(self._link)
            link = await self._dialled_link(timeout)
            if link.svid is not self._identity.current.svid:
                continue  # it rotated meanwhile: keys must match (trap 5)
            if link.pump.is_ending:  # so would be the next one
                raise NsmError(Code.UNAVAILABLE, f"{self.url}: {_reason(link)}")
            if link.is_open:
                return link

    def _usable(self) -> Link | None:
        """The link at hand, if a call may begin on it."""
        link = self._link
        is_usable = link is not None and link.svid is self._identity.current.svid and link.is_usable
        return link if is_usable else None

    async def _dialled_link(self, timeout: float | None) -> Link:
        if self._dialling is None:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
            self._dialling.add_done_callback(self._dialled)
        patience = None if timeout is None or timeout >= self._dial_timeout else timeout
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._dialling)
        except TimeoutError as error:
            raise NsmError(
                Code.UNAVAILABLE, f"dialling {self.url}: no answer within {timeout:.3g} s"
            ) from error

    async def _dial(self) -> Link:
        link = await dial(self.url, self._contexts, self._dial_timeout)
        self._links = {one for one in self._links if not one.pump.is_closed}
        self._links.add(link)
        self._link = link
        return link

    def _dialled(self, task: asyncio.Task[Link]) -> None:
        if self._dialling is task:
            self._dialling = None
        if not task.cancelled():
            task.exception()  # whoever waits has it; when all have left it concerns nobody

    def _retire(self, link: Link) -> None:
        link.retire()
        if self._link is link:
            self._link = None

    def _queue(self, link: Link, fds: Sequence[int]) -> None:
        if fds and not link.peer.passes_fds:
            raise no_descriptors(f"{len(fds)} descriptors", self.url)
        for fd in fds:
            link.pump.wire.outbox.put(fd)

    def _token(self, link: Link) -> Token | None:
        if self._tokens is None:
            return None
        return self._tokens.token(link.peer.spiffe_id, link.peer.not_after, link.svid)


class Channels:
    """The channels of a process by URL; they stay open until dropped."""

    def __init__(
        self, identity: Identity, tokens: TokenSource | None = None, *, dial_timeout: float = 5.0
    ) -> None:
        self._identity = identity
        self._tokens = tokens
        self._dial_timeout = dial_timeout
        self._contexts = Contexts(identity)
        self._channels: dict[str, Channel] = {}
        self._unsubscribe = identity.subscribe(self._end_untrusted)

    def get(self, url: str) -> Channel:
        """The channel to a URL; dials on first use only."""
        channel = self._channels.get(url)
        if channel is None:
            channel = Channel(
                url,
                self._identity,
                self._tokens,
                dial_timeout=self._dial_timeout,
                contexts=self._contexts,
            )
            self._channels[url] = channel
        return channel

    async def drop(self, url: str) -> None:
        """Close and forget one, e.g. when the descriptor behind its URL is gone."""
        channel = self._channels.pop(url, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        """Close all."""
        self._unsubscribe()
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))

    def _end_untrusted(self, material: Material) -> None:
        for channel in list(self._channels.values()):
            channel.end_untrusted(material)


class _NeverSentError(Exception):
    """The connection had ended before the call left."""


@contextmanager
def _status(link: Link) -> Iterator[None]:
    """GRPC's exceptions as NsmError; a broken connection with the reason that the pump saw."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        details = error.details() or ""
        if error.code().name == Code.UNAVAILABLE.name:
            if details.startswith(_NEVER_SENT):
                raise _NeverSentError(_reason(link)) from error
            if link.pump.is_ending:
                raise NsmError(Code.UNAVAILABLE, f"{link.peer.address}: {_reason(link)}") from error
        raise from_grpc(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise NsmError(
            Code.UNAVAILABLE, f"{link.peer.address}: {_reason(link)}"
        ) from error  # the link was closed


def _with(token: Token | None, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Plain metadata, since grpcio's call credentials need its own TLS (trap 52)."""
    return pairs if token is None else (*pairs, *token_metadata(token))


def _patience(left: float, token: Token | None) -> float:
    """Seconds a call may take of the ``left`` ones, in view of the life of the token that goes with it.

    A token that is over takes nothing away: the peer says so, which tells more than a deadline.
    """
    life = 0.0 if token is None else token.expires / 1e9 - time.time()
    return max(0.0, min(left, life * TOKEN_SHARE) if life > 0 else left)


def _reason(link: Link) -> str:
    return link.pump.reason or "the connection was closed"


def _decoded(method: Method[Any, Res], data: bytes, peer: Peer) -> Res:
    try:
        return method.decode_response(data)
    except NsmError as error:
        raise NsmError(
            Code.INTERNAL, f"{peer.spiffe_id} gave a malformed answer: {error.message}", field=error.field
        ) from error


def _ascii(metadata: Any) -> tuple[tuple[str, str], ...]:
    pairs = itertools.chain(metadata or ())
    return tuple((str(key), value) for key, value in pairs if isinstance(value, str))
