"""A store whose disk is full: what is new is refused by name, what is there goes on; afterwards all is as before."""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.service.registry import RegistryClient
from nsmctl.lab.kernel import mount, unmount
from nsmctl.lab.ready import wait_event
from tests.fakes.caller import caller
from tests.scenes import DATAPLANES, WAIT_S, Scene, carried, settled

SIZE = 256 << 10
"""Bytes: room for a store of some entries."""

ON_LINUX = pytest.mark.parametrize("shared_lab", DATAPLANES[:1], indirect=True)
"""No store knows the dataplane."""


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A disk of ``SIZE`` at ``directory`` while the block runs; gives the file that ``fill`` fills it with."""
    directory.mkdir(parents=True, exist_ok=True)
    mount("none", str(directory), "tmpfs", 0, f"size={SIZE}")
    try:
        yield directory / "filling"
    finally:
        unmount(str(directory))


def fill(filling: Path) -> None:
    with filling.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert shutil.disk_usage(filling.parent).free == 0


def rows(store: Path) -> int:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM connection").fetchone()[0])


@contextmanager
def forwarder_on_a_small_disk(lab: Scene, folder: Path) -> Iterator[Path]:
    """The near forwarder keeps its store there while the block runs; gives the file that fills the disk."""
    name = f"{lab.near.name}/forwarder"
    lab.world.end(name)
    try:
        with small_disk(folder) as filling:
            lab.start(name)
            try:
                yield filling
            finally:
                lab.clean()
                lab.world.end(name)
    finally:
        lab.start(name)


@ON_LINUX
def test_the_forwarders_disk(lab: Scene) -> None:
    folder = lab.near.directory / "forwarder"
    with forwarder_on_a_small_disk(lab, folder) as filling:
        with_a_full_disk(lab, folder / "connections.db", filling)


def with_a_full_disk(lab: Scene, store: Path, filling: Path) -> None:
    lab.endpoint("server", node=lab.near)
    (steady,) = lab.client("steady", "server-service", NSM_MAX_TOKEN_LIFETIME="12s")
    lab.client("leaving", "server-service")
    space = lab.workload("odd")
    assert rows(store) == 2
    before = lab.census()
    fill(filling)

    async def refused() -> NsmError:
        async with caller("odd", lab.near.manager, lab.near.identities) as who:
            return await who.refused(who.first("server-service"), who.kernel(space))

    async def accepted() -> None:
        async with caller("odd", lab.near.manager, lab.near.identities) as who:
            await who.close(await who.request(who.first("server-service"), who.kernel(space)))

    error = asyncio.run(refused())
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(store) in error.message
    assert lab.left_since(before) == ()
    lab.remove("leaving")
    lab.refreshed(steady["connection"], 1)
    carried(lab.probe(steady, "steady", "server", rate=200, seconds=0.2))
    filling.unlink()
    asyncio.run(accepted())
    assert settled(lambda: rows(store), lambda found: found == 1) == 1, "the closed ones are in the store"
    carried(lab.probe(steady, "steady", "server", rate=200, seconds=0.2))


@ON_LINUX
def test_the_registrys_disk(lab: Scene) -> None:
    folder = lab.near.directory / "spare"
    url = f"unix://{folder}.sock"
    daemon = lab.daemon(f"{lab.near.name}/registry", NSM_LISTEN_ON=url, NSM_STORE=str(folder / "db"))
    daemon = replace(daemon, name="spare", log=folder.with_suffix(".log"))
    lab.workload("odd")
    with small_disk(folder) as filling:
        lab.world.start(daemon)
        try:
            asyncio.run(registrations(lab, url, folder / "db", filling))
            lab.world.end("spare")
            process, since = lab.world.launch(daemon)
            assert wait_event(process, "ready", timeout=WAIT_S, since=since)
            assert asyncio.run(found(lab, url)) == {"kept", "late"}
        finally:
            lab.world.end("spare")
    folder.rmdir()


async def registrations(lab: Scene, url: str, store: Path, filling: Path) -> None:
    async with caller("odd", url, lab.near.identities) as who:
        registry = RegistryClient(who.node.channels, url)
        kept = await registry.register_endpoint(endpoint("kept"))
        fill(filling)
        for attempt in (registry.register_endpoint(endpoint("late")), registry.register_service(SERVICE)):
            with pytest.raises(NsmError) as caught:
                await attempt
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            assert str(store) in caught.value.message
        again = await registry.register_endpoint(endpoint("kept"))
        assert (again.expiration_time or 0) >= (kept.expiration_time or 0)
        assert await names(registry) == {"kept"}
        await asyncio.to_thread(filling.unlink)
        await registry.register_endpoint(endpoint("late"))
        await registry.register_service(SERVICE)


SERVICE = NetworkService("spare-service")


def endpoint(name: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, network_service_names=(SERVICE.name,), url="tcp://192.0.2.1:1")


async def found(lab: Scene, url: str) -> set[str]:
    async with caller("odd", url, lab.near.identities) as who:
        return await names(RegistryClient(who.node.channels, url))


async def names(registry: RegistryClient) -> set[str]:
    return {each.name for each in await registry.find_endpoints(NetworkServiceEndpoint(name=""))}
