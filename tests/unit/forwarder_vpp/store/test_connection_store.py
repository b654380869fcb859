import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.mechanisms.tunnel import Choice
from forwarder_vpp.store import sqlite
from forwarder_vpp.store.row import Row, from_text, to_text
from forwarder_vpp.store.sqlite import SqliteStore
from nsm.model.connection import Connection
from nsm.model.context import IpNeighbor, PolicyRoute, Route
from nsm.model.errors import Code, NsmError

KERNEL = KernelEnd(
    NetnsId(4, 4026531840, 7),
    "nsm-1",
    ("10.0.0.1/32", "fd00::1/128"),
    (Route("10.0.0.2/32"), Route("10.1.0.0/16", "10.0.0.2")),
    (IpNeighbor("10.0.0.2", "02:00:00:00:00:01"),),
    (PolicyRoute("10.0.0.9/32", "tcp", "80", "", (Route("0.0.0.0/0", "10.0.0.2"),)),),
)
VXLAN = VxlanEnd("192.0.2.1", "192.0.2.2", 6)
WIREGUARD = WireguardEnd("192.0.2.1", "192.0.2.2", 51900, 51901, "cHJpdmF0ZQ==", "cHVibGlj")


def row(name: str, end: VxlanEnd | WireguardEnd = WIREGUARD) -> Row:
    intent = Intent(name, f"nsm1-{name}", "IP", 1440, KERNEL, end, 1e9)
    connection = Connection(id=name, network_service="s")
    return Row(
        intent,
        Choice(),
        Choice(0, 51900, "a", "b"),
        "REMOTE",
        "WIREGUARD",
        {"k": "v"},
        connection,
        "tcp://x:1",
    )


@pytest.mark.parametrize("end", [VXLAN, WIREGUARD])
def test_a_row_survives_its_text(end: VxlanEnd | WireguardEnd) -> None:
    again = from_text(to_text(row("a", end)))
    assert again == row("a", end)
    assert again.intent.expires == 1e9


async def test_rows_survive_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "state" / "store.db"
    store = await SqliteStore.open(path)
    await asyncio.gather(*(store.put(row(f"c{number}")) for number in range(50)))
    await store.remove("c0")
    store.put_later(row("late"))
    store.remove_later("c1")
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in path.parent.iterdir())
    await store.close()
    again = await SqliteStore.open(path)
    assert {each.id for each in await again.load()} == {"late", *(f"c{number}" for number in range(2, 50))}
    await again.close()


async def test_what_may_wait_goes_with_the_next_change_or_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    transactions: list[tuple[str, ...]] = []
    written = asyncio.Event()
    carry_out = store._transaction

    async def recorded(changes: Mapping[str, Row | None]) -> NsmError | None:
        transactions.append(tuple(changes))
        written.set()
        return await carry_out(changes)

    monkeypatch.setattr(store, "_transaction", recorded)
    store.put_later(row("a"))
    store.put_later(row("b"))
    await store.put(row("c"))
    assert transactions == [("a", "b", "c")]
    written.clear()
    monkeypatch.setattr(sqlite, "PAUSE", 0.0)
    store.put_later(row("d"))
    store.put_later(row("a"))
    await written.wait()
    assert transactions[1:] == [("d", "a")]
    store.put_later(row("e"))
    store.remove_later("e")
    await store.close()
    again = await SqliteStore.open(tmp_path / "store.db")
    assert {each.id for each in await again.load()} == {"a", "b", "c", "d"}
    await again.close()


async def test_a_broken_file_is_set_aside_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database at all" * 400)
    store = await SqliteStore.open(path)
    assert await store.load() == []
    await store.put(row("a"))
    await store.close()
    assert path.with_name("store.db.broken").read_bytes().startswith(b"not a database")


async def test_an_unreadable_row_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    await store.put(row("a"))
    await store._connection.execute("INSERT INTO connection VALUES ('b', '{}')")
    await store._connection.commit()
    assert [each.id for each in await store.load()] == ["a"]
    await store.close()


async def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path)
    await store._connection.execute("PRAGMA user_version = 99")
    await store._connection.commit()
    await store.close()
    with pytest.raises(NsmError, match="version 99"):
        await SqliteStore.open(path)


async def test_a_full_disk_is_said_and_later_writes_succeed(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    pages = next(iter(await store._connection.execute_fetchall("PRAGMA page_count")))[0]
    await store._connection.execute_fetchall(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NsmError) as caught:
        await asyncio.gather(*(store.put(row(f"c{number}")) for number in range(20)))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    await store._connection.execute_fetchall("PRAGMA max_page_count = 100000")
    await store.put(row("a"))
    assert [each.id for each in await store.load()] == ["a"]
    await store.close()
