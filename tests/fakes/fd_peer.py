"""A stand-in for a Go peer (grpcfd under TLS under gRPC), written from its behaviour; imports nothing of ``nsm``.

Threads and the blocking API of grpcio: TLS by the standard library over memory BIOs, one descriptor per byte, at most
64 a write, opened O_PATH, received ones kept until the connection closes. Requests and answers are bytes.
"""

import array
import base64
import os
import secrets
import socket
import ssl
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

SPACE = socket.CMSG_SPACE(64 * 4)
PATIENCE = 20.0


@dataclass(frozen=True)
class Papers:
    """An SVID and what its owner trusts, all DER."""

    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    anchors: tuple[bytes, ...]

    def context(
        self, *, is_server: bool, alpn: Sequence[str] = ("h2",), is_tls12: bool = False
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if is_tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(cadata=b"".join(self.anchors))
        if self.chain:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(
                    "".join(_pem("CERTIFICATE", one) for one in self.chain) + _pem("PRIVATE KEY", self.key)
                )
                file.flush()
                context.load_cert_chain(file.name)
        return context


def _pem(kind: str, der: bytes) -> str:
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"


class Transceiver:
    """One connection, between the wire and a plaintext socket of grpcio."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, is_server: bool, dribble: bool = False
    ) -> None:
        """``dribble``: every byte is sent in a write of its own."""
        self._sock = sock
        self._dribble = dribble
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=is_server)
        self._lock = threading.RLock()
        self._queue: deque[int] = deque()
        self._changed = threading.Condition()
        self.received: dict[tuple[int, int], int] = {}
        self.arrivals = 0
        self._private: socket.socket | None = None
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        while not self._handshake():
            self._read()

    @property
    def spiffe_id(self) -> str:
        certificate: Any = self._tls.getpeercert()
        return next(str(value) for kind, value in certificate["subjectAltName"] if kind == "URI")

    def _handshake(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        return True

    def _read(self) -> None:
        data, ancillary, flags, _ = self._sock.recvmsg(16384, SPACE, socket.MSG_CMSG_CLOEXEC)
        assert not flags & socket.MSG_CTRUNC
        for _, _, raw in ancillary:
            for fd in array.array("i", raw):
                self._keep(fd)
        if not data:
            raise ConnectionResetError("the other side has ended")
        self._incoming.write(data)

    def _keep(self, fd: int) -> None:
        status = os.fstat(fd)
        with self._changed:
            self.arrivals += 1
            if (status.st_dev, status.st_ino) in self.received:
                os.close(fd)
            else:
                self.received[status.st_dev, status.st_ino] = fd
            self._changed.notify_all()

    def _flush(self) -> None:
        """The Write of grpcfd: descriptor i goes with byte i, at most 64 of them, the rest plainly."""
        with self._lock:
            data = self._outgoing.read()
            at = 0
            while data[at:] and self._queue and at < 64:
                fd = self._queue.popleft()
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
                at += self._sock.sendmsg([data[at : at + 1]], [rights])
                os.close(fd)
            if self._dribble:
                for one in data[at:]:
                    self._sock.sendall(bytes([one]))
            elif data[at:]:
                self._sock.sendall(data[at:])

    def queue_file(self, path: str) -> str:
        """``SendFilename``: leaves with the next write."""
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        status = os.fstat(fd)
        with self._lock:
            self._queue.append(fd)
        return f"inode://{status.st_dev}/{status.st_ino}"

    def wait_fd(self, url: str) -> int:
        """A dup of a descriptor that has arrived, or does within some seconds."""
        device, inode = url.removeprefix("inode://").split("/")
        key = (int(device), int(inode))
        with self._changed:
            assert self._changed.wait_for(lambda: key in self.received, PATIENCE), f"{url} never came"
            return os.dup(self.received[key])

    def join(self, private: socket.socket) -> None:
        """Pump until either side ends."""
        self._private = private
        for target in (self._inwards, self._outwards):
            thread = threading.Thread(target=target, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _inwards(self) -> None:
        assert self._private is not None
        try:
            while True:
                with self._lock:
                    chunks = self._decrypted()
                for chunk in chunks:
                    self._private.sendall(chunk)
                self._read()
        except (OSError, ValueError):
            self._end()

    def _decrypted(self) -> list[bytes]:
        chunks = []
        try:
            while chunk := self._tls.read(65536):
                chunks.append(chunk)
        except ssl.SSLWantReadError:
            return chunks
        raise ConnectionResetError("good-bye")

    def _outwards(self) -> None:
        assert self._private is not None
        try:
            while data := self._private.recv(65536):
                with self._lock:
                    self._tls.write(data)
                    self._flush()
        except (OSError, ValueError):
            pass
        self._end()

    def abort(self) -> None:
        """Cut the connection in the middle of whatever goes on."""
        self._end()

    def _end(self) -> None:
        for sock in (self._sock, self._private):
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._end()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._sock.close()
        if self._private is not None:
            self._private.close()
        for fd in [*self.received.values(), *self._queue]:
            os.close(fd)
        self.received.clear()
        self._queue.clear()


def connect(url: str) -> socket.socket:
    if url.startswith("unix://"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(url.removeprefix("unix://"))
        return sock
    host, port = url.removeprefix("tcp://").rsplit(":", 1)
    return socket.create_connection((host, int(port)))


class PeerClient:
    """A Go client: one connection; ``call`` blocks, so run it in a thread."""

    def __init__(self, url: str, papers: Papers, *, dribble: bool = False, is_tls12: bool = False) -> None:
        context = papers.context(is_server=False, is_tls12=is_tls12)
        self.transceiver = Transceiver(connect(url), context, is_server=False, dribble=dribble)
        with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
            path = str(Path(directory) / "s")
            listener.bind(path)
            listener.listen(1)
            options = (("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost"))
            self.channel = grpc.insecure_channel(f"unix:{path}", options=options)
            ready = grpc.channel_ready_future(self.channel)
            private, _ = listener.accept()
            self.transceiver.join(private)
            ready.result(PATIENCE)

    def call(self, method: str, request: bytes, *, timeout: float = PATIENCE, metadata: Any = ()) -> bytes:
        answer: bytes = self.channel.unary_unary(method)(request, timeout=timeout, metadata=metadata)
        return answer

    def stream(self, method: str, request: bytes, *, timeout: float = PATIENCE) -> list[bytes]:
        return list(self.channel.unary_stream(method)(request, timeout=timeout))

    def close(self) -> None:
        self.channel.close()
        self.transceiver.close()


Handler = Callable[[bytes, Transceiver, Any], bytes]


class PeerServer:
    """A Go server on one URL; handlers get the request's bytes, the connection and gRPC's context."""

    def __init__(
        self,
        path: Path,
        papers: Papers,
        handlers: dict[str, Handler],
        *,
        alpn: Sequence[str] = ("h2",),
        is_tls12: bool = False,
    ) -> None:
        self.transceivers: list[Transceiver] = []
        self.refusals: list[str] = []
        self._context = papers.context(is_server=True, alpn=alpn, is_tls12=is_tls12)
        self._by_name: dict[str, Transceiver] = {}
        self._directory = tempfile.TemporaryDirectory()
        self._private = str(Path(self._directory.name) / "s")
        self._grpc = grpc.server(ThreadPoolExecutor(16))
        self._grpc.add_generic_rpc_handlers((_Generic(handlers, self._by_name),))
        self._grpc.add_insecure_port(f"unix:{self._private}")
        self._grpc.start()
        self.path = path
        self.url = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(256)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            try:
                transceiver = Transceiver(sock, self._context, is_server=True)
            except (OSError, ValueError) as error:
                self.refusals.append(str(error))
                sock.close()
                continue
            name = f"peer-{secrets.token_hex(8)}"
            private = socket.socket(socket.AF_UNIX)
            private.bind(f"\0{name}")
            private.connect(self._private)
            self._by_name[name] = transceiver
            self.transceivers.append(transceiver)
            transceiver.join(private)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._listener.close()
        self.path.unlink()
        self._grpc.stop(0).wait(PATIENCE)
        del self._grpc  # grpcio closes its poller with it
        for transceiver in self.transceivers:
            transceiver.close()
        self._directory.cleanup()


class _Generic(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, handlers: dict[str, Handler], by_name: dict[str, Transceiver]) -> None:
        self._handlers = handlers
        self._by_name = by_name

    def service(self, details: Any) -> Any:
        handler = self._handlers.get(details.method)
        if handler is None:
            return None

        def behaviour(request: bytes, context: Any) -> bytes:
            return handler(request, self._by_name[context.peer().removeprefix("unix-abstract:")], context)

        return grpc.unary_unary_rpc_method_handler(behaviour)
