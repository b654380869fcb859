"""The two VPPs every contract case runs against: the fake, and the one on PATH or in VPP_BINARY."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from vpp_papi import VPPApiClient

from forwarder_vpp.dataplane.vpp.process import VppProcess
from forwarder_vpp.dataplane.vpp.session import VppSession
from tests.contract.targets import Target, api_folder, vpp_binary
from tests.fakes.fake_vpp.server import FakeVpp


@pytest.fixture(scope="session")
def papi_definitions() -> dict[str, Any]:
    """vpp_papi's messages by name, from the API files of the installed VPP."""
    client = VPPApiClient(apidir=api_folder(), testmode=True)
    messages: dict[str, Any] = client.messages
    return messages


@pytest.fixture(scope="session")
def live_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real VPP for the whole run."""
    binary = vpp_binary()
    process = VppProcess(tmp_path_factory.mktemp("vpp"), binary=binary)

    async def begin() -> None:
        await process.ensure()
        await process.release()

    asyncio.run(begin())
    yield str(process.api_socket)
    asyncio.run(process.stop())


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeVpp]:
    found = FakeVpp(str(tmp_path / "api.sock"))
    await found.start()
    yield found
    await found.kill()


@pytest.fixture(params=["fake", pytest.param("vpp", marks=pytest.mark.vpp)])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "vpp":
        return Target(request.getfixturevalue("live_socket"))
    fake = request.getfixturevalue("fake")
    return Target(fake.path, fake)


@pytest.fixture
async def session(target: Target) -> AsyncIterator[VppSession]:
    found = VppSession(target.path, name="contract")
    await found.connect()
    yield found
    await found.close()
