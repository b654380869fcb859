"""What client and endpoint share: the namespace that gets an interface, and the interface's name (reference §2.3).

``inodeURL`` of the kernel mechanism is ``file:///path`` inside a process; the hop turns it into a descriptor.
"""

import asyncio
import secrets
import string
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

OWN_NETNS: Final = Path("/proc/thread-self/ns/net")
NETNS_DIRECTORY: Final = Path("/run/netns")
MAX_INTERFACE_NAME: Final = 15
"""Bytes of a Linux interface name (IFNAMSIZ without its zero)."""

_ALPHABET: Final = string.ascii_letters + string.digits
_STEM: Final = 10


def netns_path(text: str) -> Path:
    """The file of a namespace given as name, process id or absolute path; empty = our own. It need not exist.

    Raises ValueError ``expected ...`` for anything else.
    """
    if not text:
        return OWN_NETNS
    if text.startswith("/"):
        return Path(text)
    if text.isascii() and text.isdigit():
        return Path(f"/proc/{text}/ns/net")
    if "/" in text or text in {".", ".."} or "\0" in text:
        raise ValueError(
            f"expected the name of a network namespace, a process id or an absolute path, got {text!r}"
        )
    return NETNS_DIRECTORY / text


def netns_text(value: object) -> str:
    """For settings: the text of ``NSM_NETNS``, a YAML file may give a process id as a number."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    if text is None:
        raise ValueError(
            f"expected the name of a network namespace, a process id or an absolute path, got {value!r}"
        )
    netns_path(text)
    return text


def check_interface_name(name: str) -> str:
    """The name as it is; ValueError ``expected ...`` for one that the kernel would refuse."""
    size = len(name.encode())
    if size > MAX_INTERFACE_NAME:
        raise ValueError(
            f"expected an interface name of at most {MAX_INTERFACE_NAME} bytes, got {name!r} ({size} bytes)"
        )
    if (
        not name
        or name in {".", ".."}
        or any(char in "/:" or char.isspace() or char == "\0" for char in name)
    ):
        raise ValueError(f"expected an interface name without blanks, '/' and ':', got {name!r}")
    return name


def interface_name(service: str) -> str:
    """A new name of exactly 15 bytes: ten characters of the service, a dash, random letters and digits."""
    stem = "".join(char if char.isascii() and (char.isalnum() or char in "-_.") else "-" for char in service)
    stem = f"{stem[:_STEM]}-"
    return stem + "".join(secrets.choice(_ALPHABET) for _ in range(MAX_INTERFACE_NAME - len(stem)))


def file_url(path: Path) -> str:
    """``file:///path``."""
    return f"file://{path}"


async def completed(work: Coroutine[Any, Any, None]) -> None:
    """Run the end of a daemon to its end, whoever loses patience: it bounds its own time.

    Raises what it raises, or CancelledError afterwards if that was asked for.
    """
    task = asyncio.create_task(work)
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            is_cancelled = True
    task.result()
    if is_cancelled:
        raise asyncio.CancelledError
