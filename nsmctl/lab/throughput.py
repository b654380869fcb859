"""TCP throughput between two namespaces, measured by iperf3."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from nsmctl.errors import LabError

_LAUNCHER: Final = Path(__file__).with_name("launch.py")


def tcp(*, client: Path, endpoint: Path, address: str, seconds: int = 3) -> float:
    """Gbit/s that the endpoint's side received over one stream; ``address`` is the endpoint's."""
    with subprocess.Popen(
        _inside(endpoint, "iperf3", "-s", "-1", "-B", address, "--forceflush"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            _await_listening(server)
            done = subprocess.run(
                _inside(client, "iperf3", "-c", address, "-t", str(seconds), "-J"),
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + 30,
            )
            report = json.loads(done.stdout)
            if "error" in report:
                raise LabError(f"iperf3: {report['error']}")
            return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9
        except (ValueError, KeyError, subprocess.TimeoutExpired) as error:
            raise LabError(f"iperf3 gave no figure: {error}") from error
        finally:
            server.terminate()


def _await_listening(server: "subprocess.Popen[str]") -> None:
    assert server.stdout is not None
    for line in server.stdout:
        if "listening" in line:
            return
    raise LabError("iperf3 ended before it listened", hint="install the package iperf3")


def _inside(space: Path, *argv: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(space), *argv]
