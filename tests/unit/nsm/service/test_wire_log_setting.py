"""``NSM_WIRE_LOG`` in a daemon's frame, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
DAEMON = """
import sys
from nsm.service.config import NsmSettings, load
from nsm.service.daemon import run
from nsm.transport import wirelog

class Settings(NsmSettings):
    name: str = "probe"

async def main(settings, daemon):
    daemon.ready(recorded=wirelog.current() is not None)

status = run(load(Settings), main)
assert wirelog.current() is None
sys.exit(status)
"""


def run(**env: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "NSM_LOG_FORMAT": "json", **env}
    command = [sys.executable, "-c", DAEMON]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=60
    )


@pytest.mark.parametrize("is_on", [True, False])
def test_it_is_on_while_the_daemon_runs_if_it_is_asked_for(tmp_path: Path, is_on: bool) -> None:
    file = tmp_path / "wire.jsonl"
    done = run(NSM_WIRE_LOG=str(file) if is_on else "")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["recorded"] for event in events if event["event"] == "ready"] == [is_on]
    assert ["wire_log" in [event["event"] for event in events], file.exists()] == [is_on, is_on]


def test_a_file_that_cannot_be_written_is_a_mistake_of_the_settings(tmp_path: Path) -> None:
    done = run(NSM_WIRE_LOG=str(tmp_path / "nowhere" / "wire.jsonl"))
    assert done.returncode == 64
    assert "NSM_WIRE_LOG: expected a file that can be written" in done.stdout
