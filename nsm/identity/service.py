"""The embedded workload-identity service: an authority, a registration file, a socket per identity.

Whatever it was started with is read again when it changes on disk (or on SIGHUP): new identities get sockets, removed
ones lose them, bundles and certificates reach open streams at once. A change that cannot be read changes nothing.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc.aio
import structlog

from nsm.identity.authority import Authority, load_authority, load_bundle
from nsm.identity.doors import Doors, clear_socket
from nsm.identity.errors import IdentityError
from nsm.identity.files import check_socket_path, guard_directory
from nsm.identity.registration import Entry, Registration, load_registration
from nsm.identity.watch import Watcher
from nsm.identity.workload_api import Bundles, WorkloadApi

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is: the two files, and the default of the registration's ``directory``."""

    registration: Path
    authority: Path
    directory: Path


@dataclass(frozen=True, slots=True)
class Loaded:
    """All files, read and found good together."""

    authority: Authority
    registration: Registration
    bundles: Bundles


class IdentityService:
    """Start it, stop it, and ``reload`` it whenever its files may have changed."""

    def __init__(
        self, places: Places, *, svid_ttl: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """``svid_ttl`` (seconds) wins over the registration file's."""
        self._places = places
        self._svid_ttl = svid_ttl
        self._clock = clock
        self._loaded: Loaded | None = None
        self._private: Path | None = None
        self._server: grpc.aio.Server | None = None
        self._doors: Doors | None = None
        self._api: WorkloadApi | None = None
        self._watcher: Watcher | None = None
        self._again = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The identities that are served now."""
        return self._doors.entries if self._doors else ()

    @property
    def trust_domain(self) -> str:
        """The name of our trust domain, empty before ``start``."""
        return self._loaded.authority.trust_domain if self._loaded else ""

    async def start(self) -> None:
        """Read the files, open every socket; IdentityError (and nothing left open) if any of it fails."""
        loaded = await asyncio.to_thread(self._load, {})
        try:
            await self._open(loaded)
            failures = await self._apply(loaded)
            if failures:
                raise IdentityError("\n".join(failures))
        except BaseException:
            await self.stop()
            raise
        self._watch(loaded)
        self._reloading = asyncio.create_task(self._reload_for_ever(), name="identity-reload")

    def reload(self) -> None:
        """Look at the files again, soon."""
        self._again.set()

    async def stop(self) -> None:
        """Close and remove everything that ``start`` made."""
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.wait({self._reloading})
        if self._watcher is not None:
            self._watcher.close()
        if self._doors is not None:
            await self._doors.close_all()
        if self._server is not None:
            await self._server.stop(grace=None)
        if self._private is not None:
            with contextlib.suppress(OSError):
                self._private.unlink(missing_ok=True)
                self._private.parent.rmdir()
        self._reloading = self._watcher = self._doors = self._server = self._private = None

    def _load(self, known: Mapping[str, tuple[bytes, ...]]) -> Loaded:
        """Read all files; a federation file that cannot be read leaves the ``known`` bundle in place."""
        authority = load_authority(self._places.authority)
        domain = authority.trust_domain
        registration = load_registration(self._places.registration, domain, self._places.directory)
        bundles: dict[str, tuple[bytes, ...]] = {domain: authority.bundle}
        for name, file in registration.federation.items():
            try:
                found = load_bundle(file)
            except IdentityError as error:
                _log.error("federation.refused", trust_domain=name, reason=str(error))
                found = known.get(name, ())
            bundles[name] = tuple(dict.fromkeys((*bundles.get(name, ()), *found)))
        return Loaded(authority, registration, {name: ders for name, ders in bundles.items() if ders})

    async def _open(self, loaded: Loaded) -> None:
        """The gRPC server, on a socket that only we can reach."""
        directory = loaded.registration.directory
        guard_directory(directory, is_shared=False)
        mark = hashlib.sha256(bytes(self._places.registration.absolute())).hexdigest()[:8]
        private = directory / f".nsm-{mark}" / "s"
        check_socket_path(private)
        guard_directory(private.parent, is_shared=False)
        clear_socket(private)
        self._private = private
        self._doors = Doors(private)
        ttl = self._svid_ttl or loaded.registration.svid_ttl
        self._api = WorkloadApi(loaded.authority, loaded.bundles, ttl, self._doors.caller, clock=self._clock)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self._api.handler(),))
        self._server.add_insecure_port(f"unix:{private}")
        await self._server.start()

    async def _apply(self, loaded: Loaded) -> list[str]:
        """Serve what was loaded; returns the sockets that could not be opened, with the reason."""
        assert self._doors is not None
        assert self._api is not None
        ttl = self._svid_ttl or loaded.registration.svid_ttl
        self._api.publish(loaded.authority, loaded.bundles, ttl)
        wanted = set(loaded.registration.entries)
        for entry in set(self._doors.entries) - wanted:
            await self._doors.close(entry)
            self._api.forget(entry.spiffe_id)
            _log.info("entry.removed", spiffe_id=entry.spiffe_id, socket=str(entry.socket))
        failures: list[str] = []
        served = set(self._doors.entries)
        for entry in (entry for entry in loaded.registration.entries if entry not in served):
            try:
                await self._doors.open(entry)
            except IdentityError as error:
                failures.append(str(error))
                continue
            _log.info("entry.added", spiffe_id=entry.spiffe_id, socket=str(entry.socket), uid=entry.uid)
        self._loaded = loaded
        return failures

    def _watch(self, loaded: Loaded) -> None:
        """Have ``reload`` called when a file changes; without inotify only SIGHUP does it."""
        try:
            self._watcher = self._watcher or Watcher(self.reload)
        except OSError as error:
            _log.warning("watch.off", reason=f"inotify: {error.strerror}; send SIGHUP after changes")
            return
        self._watcher.watch(
            (self._places.registration, self._places.authority, *loaded.registration.federation.values())
        )

    async def _reload_for_ever(self) -> None:
        """One reload at a time; changes during one make another."""
        refused = ""
        while True:
            await self._again.wait()
            self._again.clear()
            try:
                assert self._loaded is not None
                loaded = await asyncio.to_thread(self._load, self._loaded.bundles)
                failures = await self._apply(loaded)
                self._watch(loaded)
                problem = "\n".join(failures)
            except IdentityError as error:
                problem = str(error)
            if problem and problem != refused:
                _log.error("reload.refused", reason=problem)
            elif not problem:
                _log.info("reloaded", entries=len(self.entries))
            refused = problem
