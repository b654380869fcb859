"""Streams that end among their messages: nothing of them stays in gRPC's own memory, which no Python object shows."""

import asyncio
import ctypes
import gc

from nsm.model.connection import MonitorScopeSelector
from nsm.transport.channel import Channel
from nsm.wire import methods
from tests.unit.nsm.transport.bench import Bench

SIZE = 10_000
"""Four of them go out at once: a send that waits for the receiver is the other end's, and not what this is about."""
STREAMS = 300


class MallInfo(ctypes.Structure):
    """``struct mallinfo2`` of mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def allocated() -> int:
    """Bytes that malloc has given out and not got back, mapped ones too."""
    gc.collect()
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = MallInfo
    info = library.mallinfo2()
    return int(info.uordblks + info.hblkhd)


async def left_in_the_middle(channel: Channel) -> None:
    """Several large messages are sent; who reads them leaves after the first, while it waits for the next."""
    selector = MonitorScopeSelector(network_services=tuple(f"{n}{'x' * SIZE}" for n in range(4)))
    first = asyncio.Event()

    async def read() -> None:
        async for _ in channel.stream(methods.MONITOR_CONNECTIONS, selector):
            first.set()

    reading = asyncio.create_task(read())
    await first.wait()
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()


async def test_a_stream_that_is_left_in_the_middle_leaves_no_message_behind(bench: Bench) -> None:
    channel = bench.channel()
    for _ in range(5):
        await left_in_the_middle(channel)
    before = allocated()
    for _ in range(STREAMS):
        await left_in_the_middle(channel)
    assert (
        allocated() - before < STREAMS * SIZE
    )  # 2 in the middle of other tests; 19 MB when they stay behind
