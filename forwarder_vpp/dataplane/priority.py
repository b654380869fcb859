"""Processes that carry packets go before those that talk about them.

A ring or a socket holds tens of milliseconds of packets; on a busy machine a process at everybody's priority waits
longer than that for its turn, and packets are lost without anything being wrong.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

NICE: Final = -10


def prefer(process: int) -> None:
    """Give ``process`` precedence, also over other sessions; without the right to (CAP_SYS_NICE) nothing changes."""
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, process, NICE)
    with contextlib.suppress(OSError):  # a kernel without groups by session (sched(7), "autogroup")
        Path(f"/proc/{process}/autogroup").write_text(str(NICE))
