"""The leases of an endpoint in a file, so that addresses stay theirs over a restart.

JSON, replaced as a whole. Writes of Requests that come together are one write; a Request is answered only after
its lease is on disk. The connection is kept beside its lease: a Close that comes before the first refresh must find
it. Without a file, leases are recovered from the clients' refreshes alone.
"""

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from controlplane.endpoint.ipam import Lease, Pair
from controlplane.endpoint.prefixes import Address, parse_address
from nsm.model.connection import Connection
from nsm.model.errors import Code, NsmError
from nsm.wire import codec

_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Kept:
    """A lease, when it ends unless it is refreshed, in Unix seconds, and its connection as answered."""

    lease: Lease
    expires: float
    connection: Connection = field(repr=False)


class LeaseFileError(Exception):
    """The file cannot be read or says something else than leases."""


class LeaseFile:
    """The leases by connection id, in memory and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, Kept] = {}
        self._changed = 0
        self._written = 0
        self._lock = asyncio.Lock()

    def load(self) -> Mapping[str, Kept]:
        """What is on disk; none where there is no file. LeaseFileError says what is wrong with it."""
        try:
            self._kept = _parse(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            self._kept = {}
        except (OSError, ValueError, TypeError, KeyError, NsmError) as error:
            raise LeaseFileError(f"{self._path}: expected leases as JSON, got {error!r}") from error
        return dict(self._kept)

    async def put(self, connection: str, kept: Kept) -> None:
        """Keep one lease. RESOURCE_EXHAUSTED when it cannot be written; the former one counts then."""
        before = self._kept.get(connection)
        self._kept[connection] = kept
        try:
            await self._write()
        except asyncio.CancelledError:
            self._put_back(connection, kept, before)
            raise
        except OSError as error:
            self._put_back(connection, kept, before)
            raise NsmError(
                Code.RESOURCE_EXHAUSTED, f"the lease could not be stored in {self._path}: {error.strerror}"
            ) from error

    async def remove(self, connection: str) -> None:
        """Forget one lease; OSError when that cannot be written."""
        if self._kept.pop(connection, None) is not None:
            await self._write()

    def forget(self, connection: str) -> None:
        """Forget one lease; it leaves the file with the next write, its expiry is over anyway."""
        self._kept.pop(connection, None)

    def _put_back(self, connection: str, failed: Kept, before: Kept | None) -> None:
        if self._kept.get(connection) is failed:
            if before is None:
                del self._kept[connection]
            else:
                self._kept[connection] = before

    async def _write(self) -> None:
        """Write all leases, unless a write that began after this change has done so.

        A write whose Request is given up goes on: the next one must not meet it at the file.
        """
        self._changed += 1
        writing = asyncio.ensure_future(self._cover(self._changed))
        writing.add_done_callback(_heard)
        await asyncio.shield(writing)

    async def _cover(self, change: int) -> None:
        async with self._lock:
            if self._written >= change:
                return
            covered, text = self._changed, _format(self._kept)
            await asyncio.to_thread(_replace, self._path, text)
            self._written = covered


def _heard(writing: asyncio.Future[None]) -> None:
    """Its failure is told to who waits for it; when all have left it concerns nobody."""
    if not writing.cancelled():
        writing.exception()


def _replace(path: Path, text: str) -> None:
    """The file as a whole or not at all, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _format(kept: Mapping[str, Kept]) -> str:
    leases = {
        connection: {
            "pairs": [[str(pair.src), str(pair.dst)] for pair in entry.lease.pairs],
            "others": [str(address) for address in entry.lease.others],
            "expires": entry.expires,
            "connection": b64encode(codec.CONNECTION.encode(entry.connection)).decode(),
        }
        for connection, entry in kept.items()
    }
    return json.dumps({"version": _VERSION, "leases": leases}, indent=1) + "\n"


def _parse(content: Any) -> dict[str, Kept]:
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']!r}")
    return {str(connection): _entry(entry) for connection, entry in content["leases"].items()}


def _entry(entry: Any) -> Kept:
    pairs = tuple(Pair(_address(src), _address(dst)) for src, dst in entry["pairs"])
    others = tuple(_address(text) for text in entry["others"])
    connection = codec.CONNECTION.decode(b64decode(entry["connection"], validate=True))
    return Kept(Lease(pairs, others), float(entry["expires"]), connection)


def _address(text: str) -> Address:
    address = parse_address(text)
    if address is None:
        raise ValueError(f"the address {text!r}")
    return address
