"""What the figures were measured on."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any, Final

from nsmctl.lab.dataplanes import vpp_binary

CODE: Final = ("--", ":(top)", ":(top,exclude)perf/versus/recorded.json")
"""What a change of makes another program; the record of the measurements is none."""


def description() -> dict[str, Any]:
    """Processor, kernel, VPP, commit: what a figure means nothing without."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "vpp": _vpp(),
        "commit": _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"),
        "changed": bool(
            _output("git", "-C", str(Path(__file__).parent), "status", "--porcelain", "-uno", *CODE)
        ),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _vpp() -> str:
    binary = vpp_binary()
    return _output(binary, "--version").partition(" built")[0] if binary else "not installed"


def _output(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return ""
    return done.stdout.strip()
