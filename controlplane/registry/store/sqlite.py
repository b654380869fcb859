"""The registry's entries in one SQLite file: write-ahead log, readable by its owner only.

An entry is one row: its name and its protobuf encoding, so that what we do not know of it survives too.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiosqlite
import structlog

from controlplane.registry.store.base import Contents
from nsm.model.endpoint import NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.wire import codec

VERSION: Final = 1
_SCHEMA: Final = f"""
    CREATE TABLE service (name TEXT PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE endpoint (name TEXT PRIMARY KEY, entry BLOB NOT NULL) WITHOUT ROWID;
    PRAGMA user_version = {VERSION};
"""
_SETTINGS: Final = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", "PRAGMA busy_timeout = 2000")
_BROKEN: Final = frozenset({"SQLITE_CORRUPT", "SQLITE_NOTADB"})
_LOG: Final = structlog.get_logger()


class SqliteStore:
    """One connection, used by one thread of its own."""

    def __init__(self, path: Path, connection: aiosqlite.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    async def open(cls, path: Path) -> "SqliteStore":
        """Open or create ``path``, mode 0600, its directory made. A file that is no database is set aside.

        Raises:
            NsmError: INTERNAL naming the file when it cannot be opened or was written by a newer version,
                RESOURCE_EXHAUSTED when the disk is full.
        """
        try:
            return cls(path, await _connect(path))
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") not in _BROKEN:
                raise _failure(error, path) from error
            aside = path.with_name(f"{path.name}.broken")
            _set_aside(path, aside)
            _LOG.error("store.broken", file=str(path), kept_as=str(aside), error=str(error))
        except OSError as error:
            raise _failure(error, path) from error
        with _failures(path):
            return cls(path, await _connect(path))

    async def load(self) -> Contents:
        """Everything stored, sorted by name."""
        services = [codec.NETWORK_SERVICE.decode(entry) for entry in await self._entries("service")]
        endpoints = [
            codec.NETWORK_SERVICE_ENDPOINT.decode(entry) for entry in await self._entries("endpoint")
        ]
        return Contents(tuple(services), tuple(endpoints))

    async def save_service(self, service: NetworkService) -> None:
        """Write or replace."""
        await self._write(
            "INSERT OR REPLACE INTO service VALUES (?, ?)",
            (service.name, codec.NETWORK_SERVICE.encode(service)),
        )

    async def remove_service(self, name: str) -> None:
        """Remove; an unknown name is no error."""
        await self._write("DELETE FROM service WHERE name = ?", (name,))

    async def save_endpoint(self, endpoint: NetworkServiceEndpoint) -> None:
        """Write or replace."""
        await self._write(
            "INSERT OR REPLACE INTO endpoint VALUES (?, ?)",
            (endpoint.name, codec.NETWORK_SERVICE_ENDPOINT.encode(endpoint)),
        )

    async def remove_endpoint(self, name: str) -> None:
        """Remove; an unknown name is no error."""
        await self._write("DELETE FROM endpoint WHERE name = ?", (name,))

    async def close(self) -> None:
        """Close the file; the log is folded into it."""
        await self._connection.close()

    async def _entries(self, table: str) -> list[bytes]:
        with _failures(self._path):
            query = f"SELECT entry FROM {table} ORDER BY name"  # noqa: S608 - one of two literals
            return [bytes(row[0]) for row in await self._connection.execute_fetchall(query)]

    async def _write(self, statement: str, values: tuple[str | bytes, ...]) -> None:
        with _failures(self._path):  # autocommit: one statement is one transaction
            async with self._connection.execute(statement, values):
                pass


async def _connect(path: Path) -> aiosqlite.Connection:
    _prepare(path)
    connection = await aiosqlite.connect(path, isolation_level=None)
    try:
        for setting in _SETTINGS:
            await connection.execute_fetchall(setting)
        ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
        if version == 0:
            await connection.executescript(_SCHEMA)
        elif version != VERSION:
            raise NsmError(Code.INTERNAL, f"{path}: expected version {VERSION} of the store, got {version}")
    except BaseException:
        await connection.close()
        raise
    return connection


def _prepare(path: Path) -> None:
    """The file exists, empty or as it was, and is ours alone; its log and index take over its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _set_aside(path: Path, aside: Path) -> None:
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise _failure(error, path) from error


def _failure(error: OSError | sqlite3.Error, path: Path) -> NsmError:
    is_full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
    if is_full or getattr(error, "errno", 0) in {errno.ENOSPC, errno.EDQUOT}:
        return NsmError(
            Code.RESOURCE_EXHAUSTED, f"no space left for the store {path}: free space and try again"
        )
    return NsmError(Code.INTERNAL, f"the store {path} failed: {error}")
