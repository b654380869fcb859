"""Rows in one SQLite file: write-ahead log, readable by its owner only, written by one task in groups.

Whatever waits while a transaction runs goes into the next one, so 200 Requests at once cost a few transactions. What
only prolongs a connection's life waits a little longer: many refreshes are one transaction, and none is on the way of
an answer. What nobody waits for and cannot be written, as on a full disk, is tried again until it can.
"""

import asyncio
import os
import sqlite3
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Final

import aiosqlite
import structlog

from nsm.model.errors import Code, NsmError

from .row import Row, from_text, to_text

VERSION: Final = 1
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS connection (id TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID"
)
_SETTINGS: Final = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA busy_timeout = 2000")
PAUSE: Final = 0.25
"""Seconds that a ``put_later`` waits for others: an agent that dies meanwhile has a row with the expiry before, which
leaves the client four fifths of the connection's time to refresh again."""
AGAIN: Final = 2.0
"""Seconds until what could not be written and nobody waits for is tried again."""
_BROKEN: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_LOG: Final = structlog.get_logger(__name__)


class SqliteStore:
    """Implements ``Store``."""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        self._path = path
        self._connection = connection
        self._changes: dict[str, Row | None] = {}
        self._pause: asyncio.TimerHandle | None = None
        self._waiters: list[tuple[str, asyncio.Future[None]]] = []
        self._work: asyncio.Task[None] | None = None
        self._complaint = ""

    @classmethod
    async def open(cls, path: Path) -> "SqliteStore":
        """Open or create ``path``, mode 0600. A file that is no database of ours is set aside.

        NsmError: INTERNAL naming the file when it cannot be opened or is of a newer version,
        RESOURCE_EXHAUSTED when the disk is full.
        """
        try:
            return cls(path, await _connect(path))
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") not in _BROKEN:
                raise _failure(error, path) from error
            _set_aside(path)
        except OSError as error:
            raise _failure(error, path) from error
        try:
            return cls(path, await _connect(path))
        except (OSError, sqlite3.Error) as error:
            raise _failure(error, path) from error

    async def load(self) -> list[Row]:
        """Every row that can be read; another is logged and kept."""
        try:
            found = await self._connection.execute_fetchall("SELECT id, row FROM connection ORDER BY id")
        except sqlite3.Error as error:
            raise _failure(error, self._path) from error
        rows = []
        for name, text in found:
            try:
                rows.append(from_text(text))
            except ValueError as error:
                _LOG.error("store.row_unreadable", connection=name, reason=str(error))
        return rows

    async def put(self, row: Row) -> None:
        """Committed when this returns."""
        await self._change(row.id, row)

    async def remove(self, connection_id: str) -> None:
        """Committed when this returns."""
        await self._change(connection_id, None)

    def put_later(self, row: Row) -> None:
        """In a transaction that begins in ``PAUSE`` seconds, or before."""
        self._changes[row.id] = row
        self._start_in(PAUSE)

    def remove_later(self, connection_id: str) -> None:
        """In the next transaction."""
        self._changes[connection_id] = None
        self._start()

    async def close(self) -> None:
        """After the last transaction."""
        if self._changes:
            self._start()
        while self._work is not None:
            await asyncio.wait({self._work})
        self._stop_pause()
        await self._connection.close()

    async def _change(self, connection_id: str, row: Row | None) -> None:
        self._changes[connection_id] = row
        done = asyncio.get_running_loop().create_future()
        self._waiters.append((connection_id, done))
        self._start()
        await done

    def _start(self) -> None:
        self._stop_pause()
        if self._work is None:
            self._work = asyncio.create_task(self._write(), name="store")

    def _start_in(self, seconds: float) -> None:
        if self._work is None and self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(seconds, self._start)

    def _stop_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    async def _write(self) -> None:
        error: NsmError | None = None
        while self._changes and error is None:
            changes, self._changes = self._changes, {}
            waiters, self._waiters = self._waiters, []
            error = await self._transaction(changes)
            for _, waiter in waiters:
                if waiter.done():
                    continue
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(NsmError(error.code, error.message))
            if error is not None:
                self._keep(changes, {name for name, _ in waiters})
            self._tell(error)
        self._work = None
        if self._waiters:
            self._start()
        elif self._changes:
            self._start_in(AGAIN)

    def _keep(self, changes: Mapping[str, Row | None], told: AbstractSet[str]) -> None:
        """For the next transaction: all but the rows whose writers have been ``told`` that there are none."""
        kept = {name: row for name, row in changes.items() if row is None or name not in told}
        self._changes = {**kept, **self._changes}

    def _tell(self, error: NsmError | None) -> None:
        """Log what is wrong once, not at every try."""
        complaint = str(error) if error else ""
        if complaint and complaint != self._complaint:
            _LOG.error("store.failed", reason=complaint)
        elif self._complaint and not complaint:
            _LOG.info("store.writes_again", file=str(self._path))
        self._complaint = complaint

    async def _transaction(self, changes: Mapping[str, Row | None]) -> NsmError | None:
        kept = [(name, to_text(row)) for name, row in changes.items() if row is not None]
        removed: Sequence[tuple[str]] = [(name,) for name, row in changes.items() if row is None]
        try:
            if removed:
                await self._connection.executemany("DELETE FROM connection WHERE id = ?", removed)
            if kept:
                await self._connection.executemany("REPLACE INTO connection (id, row) VALUES (?, ?)", kept)
            await self._connection.commit()
        except (OSError, sqlite3.Error, ValueError) as error:
            with suppress(sqlite3.Error, ValueError):
                await self._connection.rollback()
            return _failure(error, self._path)
        return None


async def _connect(path: Path) -> aiosqlite.Connection:
    _prepare(path)
    connection = await aiosqlite.connect(path)
    try:
        for setting in _SETTINGS:
            await connection.execute(setting)
        version = next(iter(await connection.execute_fetchall("PRAGMA user_version")))[0]
        if version > VERSION:
            message = (
                f"{path} is of version {version}, this agent knows {VERSION}: use the agent that wrote it"
            )
            raise NsmError(Code.INTERNAL, message)
        await connection.execute(_SCHEMA)
        await connection.execute(f"PRAGMA user_version = {VERSION}")
        await connection.commit()
    except BaseException:
        await connection.close()
        raise
    return connection


def _prepare(path: Path) -> None:
    """The file, readable by its owner only; SQLite gives its companions the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"{path.name}.broken")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))
    _LOG.error("store.broken", file=str(path), kept_as=str(aside))


def _failure(error: Exception, path: Path) -> NsmError:
    is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" or "disk is full" in str(error)
    if is_full or getattr(error, "errno", 0) in {28, 122}:  # ENOSPC, EDQUOT
        return NsmError(Code.RESOURCE_EXHAUSTED, f"no space left for the store {path}")
    return NsmError(Code.INTERNAL, f"the store {path} failed: {error}")
