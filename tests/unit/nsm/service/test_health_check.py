"""The health check of a container against a real server: its identity, mutual TLS, gRPC's health service."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nsm.service import health as module
from nsm.service.health import HealthSettings, check, main, target
from nsm.transport.server import Server
from tests.fakes.identity import FakeAuthority
from tests.fakes.workload_api import FakeWorkloadApi


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Server, HealthSettings]]:
    identity = FakeAuthority().identity("forwarder/fwd")
    api = FakeWorkloadApi(f"unix:{tmp_path}/fwd.sock")
    await api.start()
    api.push(identity.current)
    server = Server(identity)
    url = f"unix://{tmp_path}/listen.sock"
    await server.start([url])
    yield server, HealthSettings(name="fwd", identity_dir=str(tmp_path), listen_on=(url,))
    await server.stop()
    await api.stop()


async def test_it_says_what_the_server_says(served: tuple[Server, HealthSettings]) -> None:
    server, settings = served
    assert await check(settings) == "SERVING"
    server.set_serving(False)
    assert await check(settings) == "NOT_SERVING"


async def test_the_exit_status_and_the_reason(
    served: tuple[Server, HealthSettings], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server, settings = served
    monkeypatch.setenv("NSM_NAME", settings.name)
    monkeypatch.setenv("NSM_IDENTITY_DIR", settings.identity_dir)
    monkeypatch.setenv("NSM_LISTEN_ON", settings.listen_on[0])
    assert await run() == (0, "")
    server.set_serving(False)
    assert await run() == (1, "fwd: NOT_SERVING\n")
    await server.stop()
    status, text = await run()
    assert status == 1
    assert settings.listen_on[0].removeprefix("unix://") in text


async def run() -> tuple[int, str]:
    """The command as a container runs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module.__name__),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, text = await process.communicate()
    assert process.returncode is not None
    return process.returncode, text.decode()


def test_no_identity_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    monkeypatch.setenv("NSM_NAME", "fwd")
    monkeypatch.setenv("NSM_IDENTITY_DIR", str(tmp_path))
    monkeypatch.setenv("NSM_LISTEN_ON", f"unix://{tmp_path}/listen.sock")
    assert main([]) == 1
    assert "fwd: no answer within 0.2 s" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("urls", "asked"),
    [
        (("tcp://10.0.0.1:5001", "unix:///run/a.sock"), "unix:///run/a.sock"),
        (("tcp://:5002",), "tcp://127.0.0.1:5002"),
        (("tcp://0.0.0.0:5002",), "tcp://127.0.0.1:5002"),
        (("tcp://[::]:5002",), "tcp://[::1]:5002"),
        (("tcp://10.0.0.1:5002",), "tcp://10.0.0.1:5002"),
    ],
)
def test_which_url_is_asked(urls: tuple[str, ...], asked: str) -> None:
    assert target(urls) == asked
