"""Prefixes no endpoint may hand out: a YAML file with the key ``prefixes``, watched (reference §3.11)."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import structlog
import yaml

from controlplane.manager.inotify import DirectoryWatch
from nsm.model.connection import Connection

_LOG = structlog.get_logger()


class ExcludedPrefixes:
    """The prefixes of the file as it is now; a file that cannot be read leaves those before it in force."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._prefixes: tuple[str, ...] = ()
        self._watch: DirectoryWatch | None = None

    @property
    def prefixes(self) -> tuple[str, ...]:
        """In the order of the file."""
        return self._prefixes

    def start(self, watch: Callable[[Path, Callable[[], None]], DirectoryWatch] = DirectoryWatch) -> None:
        """Read the file and watch its directory, which is made; without the right to that, only read it."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._watch = watch(self._file.parent, self.reload)
        except OSError as error:
            _LOG.warning("excluded_prefixes.not_watched", file=str(self._file), error=str(error))
        self.reload()

    def stop(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def reload(self) -> None:
        """Read the file again; without it there are no prefixes."""
        try:
            prefixes = parse(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            prefixes = ()
        except (OSError, ValueError, yaml.YAMLError) as error:
            _LOG.error("excluded_prefixes.unreadable", file=str(self._file), error=str(error))
            return
        if prefixes != self._prefixes:
            _LOG.info("excluded_prefixes.changed", prefixes=prefixes)
            self._prefixes = prefixes

    def added_to(self, connection: Connection) -> Connection:
        """The connection with these prefixes among its excluded ones, each once.

        It has an ``ip_context`` in any case: Go's endpoints with strict addresses end at a Request without one.
        """
        ip = connection.ip
        excluded = tuple(dict.fromkeys((*ip.excluded_prefixes, *self._prefixes)))
        if connection.ctx.ip_context is not None and excluded == ip.excluded_prefixes:
            return connection
        context = replace(connection.ctx, ip_context=replace(ip, excluded_prefixes=excluded))
        return replace(connection, context=context)


def parse(text: str) -> tuple[str, ...]:
    """The prefixes of the file's text. ValueError or YAMLError says what is wrong."""
    content = yaml.safe_load(text)
    if content is None:
        return ()
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping with the key prefixes, got {type(content).__name__}")  # noqa: TRY004
    prefixes = content.get("prefixes") or ()
    if not isinstance(prefixes, list | tuple):
        raise ValueError(f"expected prefixes to be a list, got {prefixes!r}")  # noqa: TRY004
    return tuple(str(ip_network(str(prefix), strict=False)) for prefix in prefixes)
