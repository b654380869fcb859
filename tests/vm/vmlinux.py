"""The kernel itself out of a bzImage: QEMU starts it at once, where the image would first unpack itself slowly.

``python3 tests/vm/vmlinux.py BZIMAGE VMLINUX``. Standard library and the Debian tools only.
"""

import subprocess
import sys
from pathlib import Path

_PACKED = (
    (b"\xfd7zXZ\x00", ("xz", "-dc", "--single-stream")),
    (b"\x28\xb5\x2f\xfd", ("zstd", "-dc")),
    (b"\x1f\x8b\x08", ("gzip", "-dc")),
)
_ELF = b"\x7fELF"


def extract(image: bytes) -> bytes | None:
    """The ELF file packed in ``image``; ``None`` if there is none."""
    for magic, command in _PACKED:
        start = image.find(magic)
        while start >= 0:
            done = subprocess.run(command, input=image[start:], capture_output=True, check=False)
            if done.stdout.startswith(_ELF):  # what follows in the image makes the tool complain: no matter
                return done.stdout
            start = image.find(magic, start + 1)
    return None


if __name__ == "__main__":
    found = extract(Path(sys.argv[1]).read_bytes())
    if found is None:
        sys.exit(f"no kernel found in {sys.argv[1]}")
    Path(sys.argv[2]).write_bytes(found)
