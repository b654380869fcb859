"""The registration file: which identities exist on this host, and which processes may have each.

directory: /run/nsm/identity          # where sockets without a path of their own go
svid_ttl: 1h
federation:                           # trust domain: PEM file of its CAs, watched
  other.org: /etc/nsm/other.org.pem
entries:
  - spiffe_id: spiffe://example.org/client/nsc-1
    socket: /run/nsm/identity/nsc-1.sock   # default: <directory>/<last part of the id>.sock
    uid: alice                             # name or number; default: that of nsm-identity
    gid: 1000                              # optional; both must fit when both are given
"""

import grp
import os
import pwd
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from nsm.identity.authority import SVID_TTL
from nsm.identity.durations import seconds
from nsm.identity.errors import IdentityError
from nsm.identity.files import check_socket_path
from nsm.identity.svid import parse_spiffe_id, trust_domain_of
from nsm.model.errors import NsmError

MAX_FILE_BYTES: Final = 4 << 20
_KEYS: Final = frozenset({"directory", "svid_ttl", "federation", "entries"})
_ENTRY_KEYS: Final = frozenset({"spiffe_id", "socket", "uid", "gid"})
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One identity: the processes that connect to ``socket`` with this uid (and gid, if given) get it."""

    spiffe_id: str
    socket: Path
    uid: int
    gid: int | None = None

    def refusal(self, uid: int, gid: int) -> str:
        """Why a process of ``uid`` and ``gid`` does not get this identity; empty = it does."""
        if uid != self.uid:
            return f"uid {uid} is not uid {self.uid}, for which {self.spiffe_id} is registered"
        if self.gid is not None and gid != self.gid:
            return f"gid {gid} is not gid {self.gid}, for which {self.spiffe_id} is registered"
        return ""


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration file's content; ``federation`` maps names of trust domains to PEM files."""

    directory: Path
    svid_ttl: float = SVID_TTL
    federation: Mapping[str, Path] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()


def load_registration(path: Path, trust_domain: str, directory: Path) -> Registration:
    """The registration of ``path`` for our ``trust_domain``; ``directory`` is the default of that key.

    Raises:
        IdentityError: names every mistake, one a line.
    """
    content = _read(path)
    problems: list[str] = []
    problems += [f"{name}: unknown, expected one of {_names(_KEYS)}" for name in content if name not in _KEYS]
    base = _field(problems, "directory", _path, content.get("directory", str(directory))) or directory
    ttl = _field(problems, "svid_ttl", seconds, content.get("svid_ttl", SVID_TTL)) or SVID_TTL
    federation = _federation(problems, content.get("federation"))
    listed = content.get("entries") or []
    if not isinstance(listed, list):
        problems.append(f"entries: expected a list, got {type(listed).__name__}")
        listed = []
    entries = [_entry(problems, f"entries[{at}]", one, trust_domain, base) for at, one in enumerate(listed)]
    result = Registration(base, ttl, federation, tuple(entry for entry in entries if entry is not None))
    sockets = Counter(entry.socket for entry in result.entries)
    problems += [
        f"{socket}: is the socket of {n} entries, expected one" for socket, n in sockets.items() if n > 1
    ]
    if problems:
        raise IdentityError("\n".join(f"{path}: {problem}" for problem in problems))
    return result


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise IdentityError(f"{path}: expected at most {MAX_FILE_BYTES} bytes")
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise IdentityError(
            f"{path}: expected a registration file (see `nsm-identity --help`): {error.strerror or error}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise IdentityError(f"{path}: expected YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise IdentityError(f"{path}: expected a mapping with {_names(_KEYS)}, got {type(content).__name__}")
    return content


def _entry(problems: list[str], place: str, item: object, trust_domain: str, directory: Path) -> Entry | None:
    """One entry; its mistakes go into ``problems``."""
    if not isinstance(item, dict):
        problems.append(f"{place}: expected a mapping with {_names(_ENTRY_KEYS)}, got {item!r}")
        return None
    before = len(problems)
    problems += [
        f"{place}.{name}: unknown, expected one of {_names(_ENTRY_KEYS)}"
        for name in item
        if name not in _ENTRY_KEYS
    ]

    def spiffe_id(value: object) -> str:
        return _spiffe_id(value, trust_domain)

    identity = _field(problems, f"{place}.spiffe_id", spiffe_id, item.get("spiffe_id"))
    default = directory / f"{(identity or '').rpartition('/')[2]}.sock"
    socket = _field(problems, f"{place}.socket", _socket, item.get("socket", str(default)))
    uid = _field(problems, f"{place}.uid", _uid, item.get("uid", os.geteuid()))
    gid = _field(problems, f"{place}.gid", _gid, item["gid"]) if item.get("gid") is not None else None
    if len(problems) > before or identity is None or socket is None or uid is None:
        return None
    return Entry(identity, socket, uid, gid)


def _field(problems: list[str], name: str, parse: Callable[[Any], T], value: object) -> T | None:
    try:
        return parse(value)
    except (IdentityError, ValueError) as error:
        problems.append(f"{name}: {error}")
        return None


def _federation(problems: list[str], value: object) -> dict[str, Path]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(f"federation: expected trust domain: file, got {value!r}")
        return {}
    result: dict[str, Path] = {}
    for name, file in value.items():
        domain = _field(problems, f"federation.{name}", _domain, name)
        path = _field(problems, f"federation.{name}", _path, file)
        if domain is not None and path is not None:
            result[domain] = path
    return result


def _spiffe_id(value: object, trust_domain: str) -> str:
    try:
        identity = parse_spiffe_id(value) if isinstance(value, str) else ""
    except NsmError as error:
        raise ValueError(error.message) from error
    if not identity:
        raise ValueError(f"expected spiffe://{trust_domain}/<role>/<name>, got {value!r}")
    if trust_domain_of(identity) != trust_domain:
        raise ValueError(f"expected an id of our trust domain {trust_domain}, got {identity}")
    return identity


def _domain(value: object) -> str:
    try:
        return trust_domain_of(value if isinstance(value, str) else "")
    except NsmError as error:
        raise ValueError(error.message) from error


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError(f"expected an absolute path, got {value!r}")
    return Path(value)


def _socket(value: object) -> Path:
    path = _path(value)
    check_socket_path(path)
    return path


def _uid(value: object) -> int:
    if isinstance(value, str) and not value.isdecimal():
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            raise ValueError(f"expected a user of this host or a number, got {value!r}") from None
    return _number(value)


def _gid(value: object) -> int:
    if isinstance(value, str) and not value.isdecimal():
        try:
            return grp.getgrnam(value).gr_gid
        except KeyError:
            raise ValueError(f"expected a group of this host or a number, got {value!r}") from None
    return _number(value)


def _number(value: object) -> int:
    number = int(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**32 - 1:
        raise ValueError(f"expected a user or group number, got {value!r}")
    return number


def _names(keys: frozenset[str]) -> str:
    return ", ".join(sorted(keys))
