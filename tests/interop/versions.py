"""Which version a peer is: what Go's linker wrote into the file, for few of them can be asked.

The layout is that of Go 1.18 and later (``debug/buildinfo``): a magic of 14 bytes, pointer size, flags, 16 bytes of
header that inline data leaves unused, then two strings, each with its length as a varint: Go's version, and the
modules as text between two marks of 16 bytes.
"""

import mmap
from pathlib import Path
from typing import Final

_MAGIC: Final = b"\xff Go buildinf:"
_HEADER: Final = 32
_MARK: Final = 16
_SDK: Final = "github.com/networkservicemesh/sdk"


def version_of(path: str) -> str:
    """``go1.26, sdk v0.5.1-0.20260407081414-9ac672ca128d``; without the sdk the module's own version."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(_MAGIC)
        if start < 0:
            return "no Go program"
        go, after = _text(data, start + _HEADER)
        modules, _ = _text(data, after)
    versions = _modules(modules[_MARK:-_MARK])
    sdk = versions.get(_SDK)
    return f"{go.decode()}, sdk {sdk}" if sdk else f"{go.decode()}, {versions.get('', 'unknown')}"


def _text(data: mmap.mmap, start: int) -> tuple[bytes, int]:
    """A string and where the next begins."""
    length = shift = 0
    while True:
        byte = data[start]
        start += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[start : start + length], start + length


def _modules(text: bytes) -> dict[str, str]:
    """Version by module; the program's own has no name."""
    found = {}
    for line in text.decode(errors="replace").splitlines():
        words = line.split("\t")
        if words[0] == "mod":
            found[""] = " ".join(words[1:3])
        elif words[0] == "dep":
            found[words[1]] = words[2]
    return found
