"""A wall clock that can be set, for processes that are started with it (``clock.c``)."""

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("clock.c")
_AHEAD: Final = struct.Struct("=q")


class WallClock:
    """``env`` gives a process this clock; ``set`` sets it for all of them at once. Monotonic time goes on."""

    def __init__(self, folder: Path) -> None:
        """The library is compiled into ``folder``; the clock is right at first."""
        self._library = folder / "clock.so"
        self._file = folder / "clock"
        words = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(self._library), str(_SOURCE)]
        subprocess.run(words, check=True)
        self._file.write_bytes(_AHEAD.pack(0))

    @property
    def env(self) -> Mapping[str, str]:
        """Environment of a process under this clock; its children have it too."""
        return {"LD_PRELOAD": str(self._library), "NSM_TEST_CLOCK": str(self._file)}

    def set(self, hours: float) -> None:
        """So many hours ahead of the real time."""
        with self._file.open("r+b") as file:
            file.write(_AHEAD.pack(round(hours * 3600)))
