"""The wanted set of a client, its ids, and the DNS its connections share."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from controlplane.client import __main__ as program
from controlplane.client import client as module
from controlplane.client.client import Client
from controlplane.client.service_url import parse_services
from controlplane.client.settings import ClientSettings
from controlplane.client.wish import Wish
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, DnsConfig, DnsContext, IpContext
from nsm.model.path import Path as NsmPath
from nsm.model.path import PathSegment
from nsm.service import config
from nsm.service.config import ConfigError


class Verifier:
    def claims(self, token: str) -> None:
        return None


class FakeNode:
    verifier = Verifier()


class FakeManager:
    """Every connection gets the next address and a name server of its own; ``gates`` hold services back."""

    made: ClassVar[list["FakeManager"]] = []
    gates: ClassVar[dict[str, asyncio.Event]] = {}

    def __init__(self, name: str, url: str, node: object, on_news: Callable[[str, Connection], None]) -> None:
        self.open: dict[str, Connection] = {}
        self.log: list[str] = []
        self.count = 0
        self.closed = asyncio.Event()
        self.made.append(self)

    async def find(self, wish: Wish) -> None:
        return None

    async def request(self, wish: Wish, connection: Connection, *, deadline: float) -> Connection:
        self.log.append(f"request {wish.id}")
        if wish.service in self.gates:
            await self.gates[wish.service].wait()
        self.count += 1
        number = self.count
        path = NsmPath(0, (PathSegment("nsc", wish.id, expires=time.time_ns() + 3600 * 10**9),))
        server = DnsConfig((f"10.0.0.{number}",), (wish.service,))
        answer = replace(
            connection,
            path=path,
            mechanism=wish.preferences[0],
            context=ConnectionContext(
                ip_context=IpContext(src_ip_addrs=(f"10.0.1.{number}/32",)), dns_context=DnsContext((server,))
            ),
        )
        self.open[wish.id] = answer
        return answer

    async def close(self, wish: Wish, connection: Connection, *, deadline: float) -> None:
        self.log.append(f"close {wish.id}")
        self.open.pop(wish.id, None)
        self.closed.set()

    def forget(self, connection_id: str) -> None:
        pass

    async def stop(self) -> None:
        self.log.append("stop")


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NsmManager", FakeManager)
    monkeypatch.setattr(FakeManager, "made", [])
    monkeypatch.setattr(FakeManager, "gates", {})


def client(tmp_path: Path, **more: Any) -> Client:
    settings = ClientSettings(resolv_conf=str(tmp_path / "resolv.conf"), liveness_check_enabled=False, **more)
    return Client(settings, FakeNode())  # type: ignore[arg-type]


def services(*urls: str) -> Any:
    return parse_services(f"kernel://{url}" for url in urls)


async def test_ids_stay_while_others_come_and_go(tmp_path: Path) -> None:
    one = client(tmp_path)
    assert await one.update(services("a/nsm-1", "b/nsm-2", "c/nsm-3")) == (["nsc-0", "nsc-1", "nsc-2"], [])
    await one.connected()
    manager = FakeManager.made[0]
    manager.log.clear()
    assert await one.update(services("c/nsm-3", "a/nsm-1", "d/nsm-4", "e")) == (["nsc-3", "nsc-4"], ["nsc-1"])
    await one.connected()
    assert sorted(manager.log) == ["close nsc-1", "request nsc-3", "request nsc-4"]
    assert await one.update(services("c/nsm-3", "a/nsm-1", "d/nsm-4", "f")) == (["nsc-1"], ["nsc-4"])
    await one.connected()
    await one.stop()
    assert manager.open == {}
    assert await one.update(services("late")) == ([], [])


async def test_the_same_service_may_be_wanted_twice(tmp_path: Path) -> None:
    one = client(tmp_path)
    await one.update(services("a", "a"))
    await one.connected()
    names = {session.wish.interface for session in one.sessions}
    assert len(names) == 2
    assert await one.update(services("a")) == ([], ["nsc-1"])
    await one.stop()


async def test_dns_follows_the_connections_and_is_given_back(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    one = client(tmp_path)
    await one.update(services("a", "b"))
    await one.connected()
    assert "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 192.0.2.1\nsearch a b\n" in file.read_text()
    await one.update(services("b"))
    assert "nameserver 10.0.0.2\nnameserver 192.0.2.1\nsearch b\n" in file.read_text()
    await one.stop()
    assert file.read_text() == "nameserver 192.0.2.1\n"
    assert files(tmp_path) == [file]


async def test_dns_is_left_alone_when_told_so(tmp_path: Path) -> None:
    one = client(tmp_path, local_dns_server_enabled=False)
    await one.update(services("a"))
    await one.connected()
    assert files(tmp_path) == []
    await one.stop()


async def test_a_session_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: FakeManager, wish: Wish) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(FakeManager, "find", broken)
    one = client(tmp_path)
    await one.update(services("a"))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await one.failed()
    await one.stop()
    assert FakeManager.made[0].log == ["stop"]


def files(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def test_sighup_reads_the_services_again_and_a_bad_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()
    really = config.load

    def load(settings: type[ClientSettings], path: Path) -> ClientSettings:
        try:
            return really(settings, path)
        except ConfigError:
            loop.call_soon_threadsafe(refused.set)
            raise

    monkeypatch.setattr(program, "load", load)
    file = tmp_path / "client.yaml"
    one = client(tmp_path)
    await one.update(services("a/nsm-1", "b/nsm-2"))
    await one.connected()
    manager = FakeManager.made[0]
    FakeManager.gates["c"] = asyncio.Event()
    reload = asyncio.Event()
    reloads = asyncio.create_task(program._reloads(one, reload, file))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    try:
        write(file, "network_services: [kernel://a/much-too-long-name]\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(refused.wait(), 10)
        write(file, "network_services: [kernel://b/nsm-2, kernel://c/nsm-3]\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(manager.closed.wait(), 10)
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
    FakeManager.gates["c"].set()
    await one.connected()
    assert [session.wish.service for session in one.sessions] == ["b", "c"]
    assert manager.log.count("request nsc-1") == 1
    reloads.cancel()
    await one.stop()
