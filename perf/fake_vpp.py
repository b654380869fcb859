"""The fake VPP as a process: ``python -m perf.fake_vpp SOCKET``; for the agent's own share of a Request's time."""

import asyncio
import sys

from tests.fakes.fake_vpp.server import FakeVpp


async def main(path: str) -> None:
    """Serve until killed."""
    await FakeVpp(path).start()
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
