"""TCP throughput and round-trip time of one connection, by iperf3 and ping."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError
from nsmctl.lab import throughput

_LAUNCHER: Final = Path(throughput.__file__).with_name("launch.py")
_AVERAGE: Final = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)/")
_EACH: Final = re.compile(r" time=([\d.]+) ms")


def tcp(*, client: Path, endpoint: Path, address: str, seconds: int) -> float:
    """Gbit/s of one stream."""
    return throughput.tcp(client=client, endpoint=endpoint, address=address, seconds=seconds)


def ping(*, client: Path, address: str, count: int) -> tuple[float, float]:
    """Average and worst round trip in milliseconds of ``count`` pings, 5 ms apart. LabError if one was lost."""
    text = _pinged(client, address, count)
    found = _AVERAGE.search(text)
    if found is None:
        raise LabError(f"ping {address} told no times: {text.strip()}")
    return float(found[2]), float(found[3])


def round_trips(*, client: Path, address: str, count: int) -> tuple[float, ...]:
    """Every round trip of ``count`` pings, 5 ms apart, in milliseconds. LabError if one was lost."""
    return times_of(_pinged(client, address, count))


def times_of(text: str) -> tuple[float, ...]:
    """The times in ping's own text, in milliseconds."""
    return tuple(float(found) for found in _EACH.findall(text))


def _pinged(client: Path, address: str, count: int) -> str:
    words = ["ping", "-n", "-c", str(count), "-i", "0.005", address]
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(client), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 + count,
    )
    if done.returncode != 0 or " 0% packet loss" not in done.stdout:
        raise LabError(f"ping {address}: {done.stdout[-300:].strip() or done.stderr.strip()}")
    return done.stdout
