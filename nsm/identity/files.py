"""Files and directories that guard secrets: atomic writes, private modes, and a refusal of unsafe places."""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from nsm.identity.errors import IdentityError

MAX_SOCKET_PATH: Final = 107
"""Bytes of a unix socket's path (``sun_path`` less its NUL)."""

_PRIVATE: Final = 0o700
_PASSABLE: Final = 0o711


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in one step: readers see the old one or the whole new one.

    Raises:
        IdentityError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner can read; IdentityError if others can, or it cannot be read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise IdentityError(f"{path}: expected mode 0600 (it holds a private key), got {mode:04o}")
            return file.read()
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror or error}") from error


def guard_directory(path: Path, *, is_shared: bool) -> None:
    """Make ``path`` a directory in which only we can create files.

    0700, or 0711 when processes of other users must reach sockets in it. An existing directory is
    accepted as it is if nobody else can write to it, and opened to 0711 if that is needed and it is ours.

    Raises:
        IdentityError: it cannot be made, or others can write to it.
    """
    try:
        path.mkdir(mode=_PASSABLE if is_shared else _PRIVATE, parents=True, exist_ok=True)
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in {0, os.geteuid()} or mode & 0o022:
            raise IdentityError(
                f"{path}: expected a directory that only its owner (root or uid {os.geteuid()}) can write to,"
                f" got mode {mode:04o} of uid {found.st_uid}"
            )
        if is_shared and not mode & 0o001 and found.st_uid == os.geteuid():
            path.chmod(mode | 0o011)
    except OSError as error:
        raise IdentityError(f"{path}: expected a directory for sockets: {error.strerror or error}") from error


def check_socket_path(path: Path) -> None:
    """IdentityError if ``path`` is too long for a unix socket."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise IdentityError(f"{path}: expected a socket path of at most {MAX_SOCKET_PATH} bytes, got {size}")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
