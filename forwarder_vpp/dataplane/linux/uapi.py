"""WireGuard's cross-platform configuration protocol over a unix socket (wireguard.com/xplatform). Blocking."""

import contextlib
import errno
import os
import select
import signal
import socket
import struct
from pathlib import Path
from typing import Final

from forwarder_vpp.dataplane.linux.keys import key_bytes, key_text
from nsm.model.errors import Code, NsmError

_TIMEOUT: Final = 5.0
_CREDENTIALS: Final = struct.Struct("=iii")
_RECEIVE: Final = 65536


class UapiError(NsmError):
    """The daemon refused a configuration: its errno."""

    def __init__(self, number: int) -> None:
        self.errno = number
        text = f"WireGuard refused the configuration: {errno.errorcode.get(number, number)} ({os.strerror(number)})"
        super().__init__(Code.INTERNAL, text)


def connect(path: Path) -> socket.socket:
    """A connection to the daemon that listens at ``path``; OSError while there is none.

    The path may be longer than a socket address holds, so it is reached through a descriptor of its folder.
    """
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        client.settimeout(_TIMEOUT)
        client.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        client.close()
        raise
    finally:
        os.close(folder)
    return client


def set_values(path: Path, pairs: list[tuple[str, str]]) -> None:
    """Configure; UapiError as the daemon says."""
    _talk(path, "set=1\n" + "".join(f"{key}={value}\n" for key, value in pairs) + "\n")


def values(path: Path) -> dict[str, str]:
    """The configuration and state; of a repeated key the last."""
    return dict(line.split("=", 1) for line in _talk(path, "get=1\n\n"))


def owner_of(client: socket.socket) -> int:
    """The process at the other end (the one that called listen)."""
    data = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[0])


def end(path: Path, timeout: float = _TIMEOUT) -> None:
    """End the daemon behind ``path`` and wait until it has gone; nothing to do if there is none."""
    try:
        with connect(path) as client:
            number = owner_of(client)
            process = os.pidfd_open(number)  # the connection proves that it lives
    except (OSError, ValueError):
        path.unlink(missing_ok=True)
        return
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not ended(process, timeout):
            signal.pidfd_send_signal(process, signal.SIGKILL)
            ended(process, timeout)
    except ProcessLookupError:  # ended of itself, its namespace having gone
        pass
    finally:
        os.close(process)
    with contextlib.suppress(ChildProcessError):  # started by an earlier agent
        os.waitpid(number, os.WNOHANG)
    path.unlink(missing_ok=True)


def ended(process: int, timeout: float) -> bool:
    """Whether the process of that descriptor has ended, within ``timeout`` seconds."""
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    return bool(waiting.poll(timeout * 1000))


def hex_key(key: str) -> str:
    """A key in base64 as the protocol wants it; ValueError if it is not 32 bytes."""
    return key_bytes(key).hex()


def base64_key(text: str) -> str:
    """A key in hex as the model has it."""
    return key_text(bytes.fromhex(text))


def _talk(path: Path, request: str) -> list[str]:
    with connect(path) as client:
        client.sendall(request.encode())
        received = b""
        while not received.endswith(b"\n\n"):
            part = client.recv(_RECEIVE)
            if not part:
                break
            received += part
    lines = [line for line in received.decode().splitlines() if line]
    number = int(dict(line.split("=", 1) for line in lines).get("errno", "0"))
    if number != 0:
        raise UapiError(abs(number))
    return [line for line in lines if not line.startswith("errno=")]
