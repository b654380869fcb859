"""A fake VPP and a session with it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.session import VppSession
from tests.fakes.fake_vpp.server import FakeVpp


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeVpp]:
    found = FakeVpp(str(tmp_path / "api.sock"))
    await found.start()
    yield found
    await found.kill()


@pytest.fixture
async def vpp(fake: FakeVpp) -> AsyncIterator[VppSession]:
    session = VppSession(fake.path)
    await session.start()
    yield session
    await session.close()
