"""A Workload API that does what it is told: rotate, send rubbish, refuse, go away and come back."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from spiffe._proto import workload_pb2

from nsm.model.identity import Material


def response_of(material: Material) -> workload_pb2.X509SVIDResponse:
    """The message that carries ``material``, federated bundles under ``spiffe://<trust domain>`` as SPIRE has it."""
    svid = material.svid
    own = svid.spiffe_id.split("/")[2]
    return workload_pb2.X509SVIDResponse(
        svids=[
            workload_pb2.X509SVID(
                spiffe_id=svid.spiffe_id,
                x509_svid=b"".join(svid.chain),
                x509_svid_key=svid.key,
                bundle=b"".join(material.bundles[own]),
            )
        ],
        federated_bundles={
            f"spiffe://{name}": b"".join(ders) for name, ders in material.bundles.items() if name != own
        },
    )


class FakeWorkloadApi:
    """Serves FetchX509SVID at ``address`` (``unix:/path`` or ``127.0.0.1:0``) between ``start`` and ``stop``."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.port = 0
        self.streams = 0
        self._opened = asyncio.Condition()
        self._current: bytes | None = None
        self._refusal: grpc.StatusCode | None = None
        self._open: set[asyncio.Queue[bytes | grpc.StatusCode]] = set()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        server = grpc.aio.server()
        handler = grpc.unary_stream_rpc_method_handler(self._fetch)
        handlers = {"FetchX509SVID": handler}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", handlers),)
        )
        self.port = server.add_insecure_port(self.address)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def push(self, material: Material) -> None:
        """From now on every stream has this material."""
        self._refusal = None
        self._current = response_of(material).SerializeToString()
        self.push_once(self._current)

    def push_once(self, message: bytes) -> None:
        """Only the open streams get this message."""
        for queue in self._open:
            queue.put_nowait(message)

    def refuse(self, code: grpc.StatusCode) -> None:
        """End the open streams with ``code``, and every new one, until the next ``push``."""
        self._refusal = code
        for queue in self._open:
            queue.put_nowait(code)

    async def streamed(self, count: int) -> None:
        """Until ``count`` streams have been opened in all."""
        async with asyncio.timeout(20), self._opened:
            await self._opened.wait_for(lambda: self.streams >= count)

    async def _fetch(self, _request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        assert ("workload.spiffe.io", "true") in (context.invocation_metadata() or ())
        async with self._opened:
            self.streams += 1
            self._opened.notify_all()
        queue: asyncio.Queue[bytes | grpc.StatusCode] = asyncio.Queue()
        if self._refusal is not None:
            queue.put_nowait(self._refusal)
        elif self._current is not None:
            queue.put_nowait(self._current)
        self._open.add(queue)
        try:
            while True:
                item = await queue.get()
                if isinstance(item, grpc.StatusCode):
                    await context.abort(item, "told to")
                else:
                    yield item
        finally:
            self._open.discard(queue)
