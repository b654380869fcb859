"""The frame of a daemon, in a process of its own: signals, exit status, guarded tasks."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]

HEAD = """
import asyncio, sys
from nsm.model.errors import invalid
from nsm.service.config import ConfigError, NsmSettings, load
from nsm.service.daemon import Daemon, open_node, run

class Settings(NsmSettings):
    name: str = "probe"

"""
TAIL = """
sys.exit(run(load(Settings), main))
"""


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(body, **env)``: the daemon whose ``main`` is ``body``."""
    made: list[subprocess.Popen[str]] = []

    def begin(body: str, **env: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD + textwrap.dedent(body) + TAIL],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "NSM_LOG_FORMAT": "json", **env},
        )
        made.append(process)
        return process

    yield begin
    for process in made:
        process.kill()
        process.communicate()


def events(process: subprocess.Popen[str], until: str) -> list[Mapping[str, object]]:
    """Log events up to the one called ``until``."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == until:
            return seen
    raise AssertionError(f"no event {until!r} in {seen}, stderr: {process.stderr and process.stderr.read()}")


def finish(process: subprocess.Popen[str]) -> tuple[int, list[Mapping[str, object]]]:
    """Exit status and remaining events."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, [json.loads(line) for line in out.splitlines()]


SERVING = """
async def main(settings, daemon):
    daemon.ready(listen_on="here")
    await daemon.stopping.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_daemon_cleanly(start: Start, number: signal.Signals) -> None:
    process = start(SERVING)
    ready = events(process, "ready")[-1]
    assert (ready["daemon"], ready["listen_on"], ready["pid"]) == ("probe", "here", process.pid)
    process.send_signal(number)
    status, rest = finish(process)
    assert (status, rest[-1]["event"]) == (0, "stopped")


def test_the_collector_leaves_alone_what_start_up_made(start: Start) -> None:
    process = start("""
        import gc

        async def main(settings, daemon):
            daemon.ready(frozen=gc.get_freeze_count())
            known = gc.get_freeze_count()
            made = [[number] for number in range(1000)]
            daemon.ready(frozen=known, again=gc.get_freeze_count())
        """)
    first, second = (one for one in events(process, "stopped") if one["event"] == "ready")
    assert first["frozen"] == 0
    assert second["frozen"] == second["again"] != 0, "at the first time only"


def test_before_ready_a_signal_cancels_what_would_wait_for_ever(start: Start) -> None:
    process = start(
        """
        async def main(settings, daemon):
            print('{"event": "waiting"}', flush=True)
            async with open_node(settings):
                raise AssertionError
        """,
        SPIFFE_ENDPOINT_SOCKET="unix:///nonexistent/socket",
    )
    events(process, "identity.waiting")
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0


def test_what_is_cancelled_before_ready_may_let_go_of_what_it_has(start: Start) -> None:
    process = start(
        """
        async def main(settings, daemon):
            try:
                print('{"event": "waiting"}', flush=True)
                await asyncio.Event().wait()
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                print('{"event": "let.go"}', flush=True)
        """
    )
    events(process, "waiting")
    process.send_signal(signal.SIGTERM)
    status, rest = finish(process)
    assert (status, [entry["event"] for entry in rest]) == (0, ["let.go", "stopped"])


def test_a_second_signal_insists(start: Start) -> None:
    process = start(
        """
        async def main(settings, daemon):
            daemon.ready()
            await daemon.stopping.wait()
            print('{"event": "stopping"}', flush=True)
            await asyncio.Event().wait()
        """
    )
    events(process, "ready")
    process.send_signal(signal.SIGTERM)
    events(process, "stopping")
    process.send_signal(signal.SIGTERM)
    status, rest = finish(process)
    assert (status, rest[-1]["event"]) == (1, "stopped.by_force")


def test_one_guarded_task_that_ends_ends_all(start: Start) -> None:
    process = start(
        """
        async def broken():
            await asyncio.sleep(0)
            raise RuntimeError("no more")

        async def other():
            try:
                await asyncio.Event().wait()
            finally:
                print('{"event": "other.ended"}', flush=True)

        async def main(settings, daemon):
            daemon.guard("other", other())
            daemon.ready()
            daemon.guard("broken", broken())
            await daemon.stopping.wait()
        """
    )
    status, seen = finish(process)
    named = [entry for entry in seen if entry["event"] == "task.ended"]
    assert (status, [entry["task"] for entry in named]) == (1, ["broken"])
    assert "no more" in str(named[0]["exception"])
    assert seen[-1]["event"] == "other.ended"


@pytest.mark.parametrize(
    ("error", "status", "event"),
    [
        ("ConfigError('NSM_X: expected y, got z')", 64, "configuration"),
        ("invalid('connection.id', 'one', 2)", 1, "failed"),
        ("ZeroDivisionError('oops')", 1, "failed"),
    ],
)
def test_what_main_raises_decides_the_status(start: Start, error: str, status: int, event: str) -> None:
    process = start(f"async def main(settings, daemon):\n    raise {error}\n")
    code, seen = finish(process)
    assert (code, [entry["event"] for entry in seen]) == (status, [event])


def test_returning_is_a_clean_end(start: Start) -> None:
    assert finish(start("async def main(settings, daemon):\n    pass\n"))[0] == 0
