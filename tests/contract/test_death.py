"""VPP dies, hangs, comes back, or is another one than we speak to."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.messages.core import ControlPing
from forwarder_vpp.dataplane.vpp.messages.interface import InterfaceDump, InterfaceFlags
from forwarder_vpp.dataplane.vpp.process import VppProcess
from forwarder_vpp.dataplane.vpp.session import VppSession
from forwarder_vpp.dataplane.vpp.table import SPECS
from nsm.model.errors import Code, NsmError
from tests.contract.targets import vpp_binary
from tests.fakes.fake_vpp.server import FakeVpp

BURST = 200


@dataclass
class Mortal:
    """A VPP that can be killed in the middle of a burst and comes back by ``revive``."""

    path: str
    kill_in_burst: Callable[[], None]
    revive: Callable[[], Awaitable[None]]


@pytest.fixture(params=["fake", pytest.param("vpp", marks=pytest.mark.vpp)])
async def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mortal]:
    if request.param == "fake":
        fake = FakeVpp(str(tmp_path / "api.sock"))
        await fake.start()
        yield Mortal(fake.path, lambda: fake.die_at(BURST // 2), fake.start)
        await fake.kill()
        return
    process = VppProcess(tmp_path, binary=vpp_binary())
    await process.ensure()

    async def nothing() -> None:
        """The supervisor does it."""

    yield Mortal(str(process.api_socket), lambda: os.kill(process.pid, signal.SIGKILL), nothing)
    await process.stop()


async def test_every_waiting_call_fails_when_vpp_dies_and_the_next_vpp_has_a_new_epoch(
    mortal: Mortal,
) -> None:
    session = VppSession(mortal.path)
    up = asyncio.Event()
    down = asyncio.Event()
    await session.start()
    session.on_down(down.set)
    session.on_up(lambda _: up.set())
    os_level = asyncio.gather(*[session.dump(InterfaceDump()) for _ in range(BURST)], return_exceptions=True)
    mortal.kill_in_burst()
    outcomes = await os_level
    lost = [each for each in outcomes if isinstance(each, NsmError)]
    assert lost
    assert {each.code for each in lost} == {Code.UNAVAILABLE}
    assert len(lost) + sum(isinstance(each, list) for each in outcomes) == BURST
    await down.wait()
    with pytest.raises(NsmError, match="no VPP on"):
        await session.call(ControlPing())
    await mortal.revive()
    await up.wait()
    assert session.epoch == 2
    assert (await session.call(ControlPing())).retval == 0
    await session.close()


async def test_a_vpp_that_does_not_answer_is_given_up_on_after_the_deadline(tmp_path: Path) -> None:
    fake = FakeVpp(str(tmp_path / "api.sock"))
    await fake.start()
    session = VppSession(fake.path, timeout=0.05)
    await session.connect()
    fake.ignore("sw_interface_set_flags")
    with pytest.raises(NsmError, match=r"did not answer sw_interface_set_flags within 0\.05 s") as caught:
        await session.call(InterfaceFlags(sw_if_index=0, flags=0))
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    assert (await session.call(ControlPing())).retval == 0
    await session.close()
    await fake.kill()


async def test_a_vpp_of_another_api_is_refused_with_every_difference_named(tmp_path: Path) -> None:
    changed = [
        replace(spec, crc=1) if spec.name == "l3xc_update" else spec
        for spec in SPECS
        if spec.name != "af_packet_create_v3"
    ]
    fake = FakeVpp(str(tmp_path / "api.sock"), changed)
    await fake.start()
    session = VppSession(fake.path)
    with pytest.raises(NsmError) as caught:
        await session.connect()
    assert caught.value.code is Code.FAILED_PRECONDITION
    message = caught.value.message
    assert "26.06-fake" in message
    assert "l3xc_update: expected 0xe96aabdf, is 0x00000001" in message
    assert "af_packet_create_v3: expected 0xb3a809d4, is absent" in message
    assert message.count("expected") == 2
    await fake.kill()


async def test_no_vpp_is_unavailable_and_names_the_socket(tmp_path: Path) -> None:
    session = VppSession(str(tmp_path / "none.sock"))
    with pytest.raises(NsmError, match=r"none\.sock: No such file") as caught:
        await session.connect()
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(NsmError, match="no VPP answered on"):
        await session.start(timeout=0.05)


async def test_something_else_on_the_socket_is_not_taken_for_vpp(tmp_path: Path) -> None:
    done = asyncio.Event()

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(8) + b"\0\0\0\4" + bytes(4) + b"HTTP")
        await reader.read()
        writer.transport.abort()
        done.set()

    path = str(tmp_path / "api.sock")
    server = await asyncio.start_unix_server(babble, path)
    session = VppSession(path)
    with pytest.raises(NsmError, match="does not speak VPP's API"):
        await session.connect()
    await done.wait()
    server.close()
