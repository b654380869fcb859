"""SIGQUIT: a daemon tells what it has in hand and goes on."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from nsm.service.inventory import inventory
from nsm.session.tokens import parse_rfc3339

ROOT = Path(__file__).parents[4]
DAEMON = """
import asyncio, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from nsm.model.path import PathSegment
from nsm.service.config import NsmSettings, load
from nsm.service.daemon import run

class Settings(NsmSettings):
    name: str = "probe"

async def idle():
    await asyncio.Event().wait()

async def main(settings, daemon):
    held, tasks = [], []
    both, pool = threading.Barrier(2), ThreadPoolExecutor(3, "own-pool")
    def keep():
        held.extend(PathSegment(name=str(number)) for number in range(3))
        tasks.append(asyncio.create_task(idle()))
        tasks.append(asyncio.create_task(idle()))
        for _ in range(2):
            asyncio.get_running_loop().run_in_executor(None, both.wait)
        asyncio.get_running_loop().run_in_executor(pool, int)
        daemon.ready()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, keep)
    daemon.ready()
    await daemon.stopping.wait()

sys.exit(run(load(Settings), main))
"""
SEGMENT = "nsm.model.path.PathSegment"


def test_what_a_daemon_holds_shows_and_it_goes_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NSM_LOG_FORMAT": "json"},
    ) as daemon:
        assert event(daemon)["event"] == "ready"
        daemon.send_signal(signal.SIGQUIT)
        before = event(daemon)
        daemon.send_signal(signal.SIGHUP)
        assert event(daemon)["event"] == "ready"
        daemon.send_signal(signal.SIGQUIT)
        after = event(daemon)
        daemon.terminate()
        assert daemon.wait(60) == 0
    assert before["event"] == after["event"] == "inventory"
    assert "idle" not in before["tasks"]
    assert after["tasks"]["idle"] == 2
    assert after["tasks"]["main"] == before["tasks"]["main"] == 1
    assert after["ours"][SEGMENT] - before["ours"].get(SEGMENT, 0) == 3
    assert after["objects"] > before["objects"]
    assert after["blocks"] > before["blocks"]
    assert before["pools"] == {}
    assert after["pools"] == {"asyncio": 2, "own-pool": 1}
    assert after["threads"] - before["threads"] == 3


def event(daemon: "subprocess.Popen[str]") -> dict[str, Any]:
    assert daemon.stdout is not None
    found: dict[str, Any] = json.loads(daemon.stdout.readline())
    return found


async def test_caches_of_ours_that_have_a_limit_are_emptied() -> None:
    limited = lru_cache(4)(parse_rfc3339.__wrapped__)
    endless = lru_cache(None)(parse_rfc3339.__wrapped__)
    foreign = lru_cache(4)(json.loads)
    for cache in (limited, endless):
        cache("2026-01-02T03:04:05Z")
    foreign("1")
    gc.freeze()  # as a daemon does when it is ready
    assert inventory(asyncio.get_running_loop())["objects"] > 0
    assert [cache.cache_info().currsize for cache in (limited, endless, foreign)] == [0, 1, 1]
