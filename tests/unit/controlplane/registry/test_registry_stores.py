"""What every store of the registry does; the SQLite one also survives, is private and reports a full disk."""

import sqlite3
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.registry.store import Contents, MemoryStore, SqliteStore, Store
from nsm.model.endpoint import Destination, Match, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError

SERVICE = NetworkService(
    "s", "IP", (Match({"a": "b"}, (Destination({"c": "d"}, 3),), metadata={}),), ("spiffe://x/y",)
)
ENDPOINT = NetworkServiceEndpoint(
    name="nse",
    network_service_names=("s",),
    network_service_labels={"s": {"k": "v"}},
    url="tcp://10.0.0.1:5001",
    expiration_time=12_345_678_901,
    initial_registration_time=1,
    path_ids=("spiffe://x/nse", "spiffe://x/registry"),
)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "db")
    yield made
    await made.close()


async def test_a_new_store_is_empty(store: Store) -> None:
    assert await store.load() == Contents()


async def test_what_is_saved_is_loaded_by_name(store: Store) -> None:
    await store.save_service(replace(SERVICE, name="z"))
    await store.save_service(SERVICE)
    await store.save_endpoint(ENDPOINT)
    assert await store.load() == Contents((SERVICE, replace(SERVICE, name="z")), (ENDPOINT,))


async def test_saving_again_replaces(store: Store) -> None:
    await store.save_endpoint(ENDPOINT)
    await store.save_endpoint(replace(ENDPOINT, url="tcp://10.0.0.2:5001"))
    await store.save_service(SERVICE)
    await store.save_service(replace(SERVICE, payload="ETHERNET"))
    contents = await store.load()
    assert [endpoint.url for endpoint in contents.endpoints] == ["tcp://10.0.0.2:5001"]
    assert [service.payload for service in contents.services] == ["ETHERNET"]


async def test_removing_removes_one_and_an_unknown_name_is_no_error(store: Store) -> None:
    await store.save_endpoint(ENDPOINT)
    await store.save_service(SERVICE)
    for name in ("nse", "nse", "s"):
        await store.remove_endpoint(name)
    assert await store.load() == Contents((SERVICE,))
    await store.remove_service("s")
    await store.remove_service("s")
    assert await store.load() == Contents()


async def test_sqlite_survives_the_process_and_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "made" / "db"
    store = await SqliteStore.open(path)
    await store.save_endpoint(ENDPOINT)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    again = await SqliteStore.open(path)  # the first one was not closed: as after SIGKILL
    assert (await again.load()).endpoints == (ENDPOINT,)
    await again.close()
    await store.close()
    assert modes == {"db": 0o600, "db-wal": 0o600, "db-shm": 0o600}


async def test_sqlite_on_a_full_disk_refuses_and_still_serves(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "db")
    await store.save_endpoint(ENDPOINT)
    await store._connection.execute_fetchall("PRAGMA max_page_count = 4")
    with pytest.raises(NsmError, match="full") as caught:
        await store.save_endpoint(replace(ENDPOINT, name="big", url="x" * 100_000))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert (await store.load()).endpoints == (ENDPOINT,)
    await store._connection.execute_fetchall("PRAGMA max_page_count = 1000")
    await store.save_service(SERVICE)
    await store.close()


async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"not a database at all" * 100)
    store = await SqliteStore.open(path)
    assert await store.load() == Contents()
    await store.close()
    assert (tmp_path / "db.broken").read_bytes().startswith(b"not a database")


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(NsmError, match="version 1 of the store, got 99"):
        await SqliteStore.open(path)


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NsmError, match=r"the store .* failed"):
        await SqliteStore.open(tmp_path / "file" / "db")
