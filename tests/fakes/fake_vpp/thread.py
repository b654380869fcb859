"""The fake on a loop and thread of its own: for tests that wait for daemons, which wait for VPP."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

from forwarder_vpp.dataplane.vpp.codec import Spec
from forwarder_vpp.dataplane.vpp.table import SPECS

from .server import FakeVpp


class ThreadedFake(FakeVpp):
    """``begin`` and ``end`` may be called again; plans are made between Requests, when the fake has nothing to do."""

    def __init__(self, path: str, specs: Sequence[Spec] = SPECS) -> None:
        super().__init__(path, specs)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="fake VPP")
        self._thread.start()

    def begin(self) -> None:
        """Listen."""
        self._await(self.start())

    def end(self) -> None:
        """As SIGKILL."""
        self._await(self.kill())

    def close(self) -> None:
        """End the thread."""
        self.end()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


@contextmanager
def fake_vpp(path: str, specs: Sequence[Spec] = SPECS) -> Iterator[ThreadedFake]:
    """A fake that listens while the block runs, unless it is ended before."""
    fake = ThreadedFake(path, specs)
    try:
        fake.begin()
        yield fake
    finally:
        fake.close()
