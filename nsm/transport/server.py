"""The serving side: our sockets with TLS in front, a gRPC server on a private socket behind.

gRPC learns who a caller is from the abstract address that the pump bound its end to: nothing inside HTTP/2 can
forge it, and a connection that has no such address is refused.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import FileDescriptor

from nsm.model.errors import Code, NsmError
from nsm.model.identity import Identity, Material
from nsm.transport.call import Call
from nsm.transport.dispatch import Generic, Handlers
from nsm.transport.extras import Health, add_reflection
from nsm.transport.handshake import handshake, set_tcp_options
from nsm.transport.peer import Peer
from nsm.transport.private import pid_of, pinned, private_path
from nsm.transport.pump import LINGER, Pump
from nsm.transport.sockets import Listener, connect_unix, listen
from nsm.transport.tls import Contexts
from nsm.transport.trust import is_trusted, withdrawn
from nsm.transport.wire import Wire
from nsm.wire.method import Method
from nsm.wire.methods import FILES

Req = TypeVar("Req")
Res = TypeVar("Res")

HANDSHAKE_TIMEOUT: Final = 10.0
_ACCEPTS_PER_TURN: Final = 64
_OUT_OF_FILES_PAUSE: Final = 0.1
_log: Final = structlog.get_logger(__name__)


class Server:
    """Serves methods, health and reflection on any number of URLs; every caller has a verified SPIFFE ID."""

    def __init__(self, identity: Identity, *, files: Sequence[FileDescriptor] = FILES) -> None:
        """``files``: what server reflection shows."""
        self._identity = identity
        self._unsubscribe: Callable[[], None] | None = None
        self._contexts = Contexts(identity)
        self._handlers = Handlers()
        self._files = files
        self._health = Health(self._handlers.services)
        self._health.add_to(self._handlers)
        self._grpc: grpc.aio.Server | None = None
        self._stack = ExitStack()
        self._private = ""
        self._listeners: list[Listener] = []
        self._arriving: set[asyncio.Task[None]] = set()
        self._connections: dict[str, tuple[Peer, Pump]] = {}
        self._prefix = f"nsm-{secrets.token_hex(16)}"
        self._count = 0
        self._all_closed = asyncio.Event()

    def unary(self, method: Method[Req, Res], handler: Callable[[Req, Call], Awaitable[Res]]) -> None:
        """Serve a method with one request and one answer."""
        self._handlers.unary(method, handler)

    def stream(self, method: Method[Req, Res], handler: Callable[[Req, Call], AsyncIterator[Res]]) -> None:
        """Serve a method with one request and many answers."""
        self._handlers.stream(method, handler)

    def bidi(
        self, method: Method[Req, Res], handler: Callable[[AsyncIterator[Req], Call], AsyncIterator[Res]]
    ) -> None:
        """Serve a method with many requests and many answers."""
        self._handlers.bidi(method, handler)

    async def start(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Listen; the URLs with their real ports.

        Raises:
            NsmError: INVALID_ARGUMENT, ALREADY_EXISTS or UNAVAILABLE naming the URL; then nothing listens.
        """
        try:
            await self._start_grpc()
            for url in urls:
                self._listeners.append(await listen(url))
        except BaseException:
            await self.stop(0)
            raise
        self.set_serving(True)
        self._unsubscribe = self._identity.subscribe(self._end_untrusted)
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.add_reader(listener.sock.fileno(), self._accept, listener)
        return tuple(listener.address.url for listener in self._listeners)

    def set_serving(self, serving: bool) -> None:
        """What the health service says, overall and of each service."""
        self._health.set_serving(serving)

    async def stop(self, grace: float = 0.2) -> None:
        """Listen no more, let calls end for ``grace`` seconds, then end them; nothing stays open."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener.sock.fileno())
            listener.close()
        self._listeners = []
        for task in list(self._arriving):
            task.cancel()
        if self._arriving:
            await asyncio.wait(self._arriving)
        if self._grpc is not None:
            await self._grpc.stop(
                grace
            )  # its end of each connection closes, the pumps follow within a second
            self._grpc = None
        await self._close_connections()
        self._stack.close()

    async def _close_connections(self) -> None:
        """Wait for the good-byes; a peer that does not read, or a call that is still held, ends here."""
        if not self._connections:
            return
        self._all_closed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._all_closed.wait()
        for _, pump in list(self._connections.values()):
            pump.close()

    async def _start_grpc(self) -> None:
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        add_reflection(self._handlers, self._files)
        server.add_generic_rpc_handlers((Generic(self._handlers, self._call_of),))
        with private_path() as path:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            self._grpc = server
            self._private = self._stack.enter_context(pinned(path))

    def _call_of(self, context: Any) -> Call | None:
        """The call with its verified caller; ``None`` = not through one of our pumps."""
        found = self._connections.get(context.peer().removeprefix("unix-abstract:"))
        if found is None:
            _log.warning("audit", action="transport", refusal="not through TLS", peer=context.peer())
            return None
        peer, pump = found
        return Call(peer, pump.wire, context.invocation_metadata() or (), context.time_remaining())

    def _accept(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listener.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}:
                    raise
                _log.error("transport.accept", error=error.strerror, url=listener.address.url)
                loop.remove_reader(listener.sock.fileno())
                loop.call_later(_OUT_OF_FILES_PAUSE, self._accept_again, listener)
                return
            task = loop.create_task(self._arrive(sock, _address(sock, address)))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    def _accept_again(self, listener: Listener) -> None:
        if listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener.sock.fileno(), self._accept, listener)

    async def _arrive(self, sock: socket.socket, address: str) -> None:
        """Authenticate a newcomer and join it to gRPC; a refusal is one log line."""
        wire = Wire(sock)
        try:
            set_tcp_options(sock)
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                tls = self._contexts.server()
                verified = await handshake(wire, tls)
                self._count += 1
                name = f"{self._prefix}-{self._count}"
                private = await connect_unix(self._private, name=name.encode())
        except BaseException as error:
            wire.close()
            if not isinstance(error, NsmError | OSError):  # TimeoutError is an OSError
                raise
            _log_refusal(error, address)
            return
        peer = Peer(verified.spiffe_id, verified.leaf, verified.not_after, address, wire.passes_fds, tls.svid)
        pump = Pump(wire, tls, private, lambda _: self._left(name))
        self._connections[name] = (peer, pump)
        pump.start()

    def _end_untrusted(self, material: Material) -> None:
        for peer, pump in list(self._connections.values()):
            if not is_trusted(peer.spiffe_id, material):
                _log.warning(
                    "audit", action="transport", refusal=withdrawn(peer.spiffe_id), address=peer.address
                )
                pump.close(withdrawn(peer.spiffe_id))

    def _left(self, name: str) -> None:
        _, pump = self._connections.pop(name)
        if pump.reason:
            _log.debug("transport.lost", reason=pump.reason)
        if not self._connections:
            self._all_closed.set()


def _log_refusal(error: NsmError | OSError, address: str) -> None:
    if isinstance(error, NsmError) and error.code is Code.UNAUTHENTICATED:
        _log.warning("audit", action="transport", refusal=error.detail, address=address)
        return
    reason = "no handshake in time" if isinstance(error, TimeoutError) else str(error)
    _log.info("transport.handshake", reason=reason, address=address)


def _address(sock: socket.socket, address: Any) -> str:
    """For people: ``tcp://host:port`` or the process at the other end."""
    if sock.family == socket.AF_UNIX:
        return f"unix:pid={pid_of(sock)}"
    host = str(address[0]).removeprefix("::ffff:")
    return f"tcp://[{host}]:{address[1]}" if ":" in host else f"tcp://{host}:{address[1]}"
