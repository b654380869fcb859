"""The answers of a streaming call, read so that its end leaves nothing behind in gRPC.

A read whose awaiter is cancelled is forgotten by grpc.aio while the core still fills it: the message it was for, and
what arrived behind it, is never freed (grpc/grpc#43360; a monitor that ended among its events cost 10 KB). So a read is
a task that nobody cancels: the call is, which ends the read.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

_END: Final = object()


async def answers(call: Any) -> AsyncGenerator[bytes, None]:
    """Until the peer ends the call, or whoever reads does; the call is over when this returns."""
    parts: AsyncIterator[bytes] = aiter(call)
    reading: asyncio.Task[Any] | None = None
    try:
        while True:
            reading = asyncio.create_task(_next(parts))
            answer = await asyncio.shield(reading)
            if answer is _END:
                return
            yield answer
    finally:
        call.cancel()
        if reading is not None:
            await _over(reading)


async def _next(parts: AsyncIterator[bytes]) -> Any:
    return await anext(parts, _END)


async def _over(reading: asyncio.Task[Any]) -> None:
    """What came of it concerns nobody any more."""
    if not reading.done():
        await asyncio.wait({reading})
    if not reading.cancelled():
        reading.exception()
