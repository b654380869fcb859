"""Many client processes, each with a namespace and an identity of its own, that ask at the same moment.

Starting twenty interpreters takes seconds, so they start without a wish; then each gets its file of services and a
SIGHUP, all within milliseconds.
"""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from nsmctl.lab import daemons
from nsmctl.lab.demonstration import flows_of
from nsmctl.lab.probes import Flow
from nsmctl.lab.processes import Process
from nsmctl.lab.ready import wait_event
from nsmctl.lab.world import READY_S, connected
from perf.stage import Stage


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one process's wish; ``seconds`` from the signal to the connection."""

    name: str
    seconds: float
    event: dict[str, Any]
    failures: tuple[str, ...]


class Processes:
    """``nsm-client`` processes of a stage, one for each of ``names``."""

    def __init__(self, stage: Stage, names: Sequence[str]) -> None:
        self._stage = stage
        self._names = tuple(names)
        self._started: dict[str, tuple[Process, int]] = {}

    def start(self) -> None:
        """Start all of them, without a wish; returns when every one is ready."""
        for name in self._names:
            self._stage.client(name)
            self._config(name, [])
            daemon = daemons.client(self._stage.near, name, self._stage.netns(name), {})
            daemon = replace(daemon, arguments=("--config", str(self._file(name))))
            self._started[name] = self._stage.world.launch(daemon)
        for process, offset in self._started.values():
            wait_event(process, "ready", timeout=READY_S, since=offset)

    def ask(self, service: str) -> list[Outcome]:
        """All want one connection to ``service`` at once; returns when every one has it."""
        for name in self._names:
            self._config(name, [f"kernel://{service}/nsm-1"])
        asked = time.time()
        for process, _ in self._started.values():
            os.kill(process.pid, signal.SIGHUP)
        return [self._outcome(name, asked) for name in self._names]

    def flows(self, outcomes: Sequence[Outcome]) -> list[Flow]:
        """A flow for every address family of every connection, each from its client's namespace."""
        return [
            replace(flow, client_netns=str(self._stage.netns(outcome.name)))
            for outcome in outcomes
            for flow in flows_of(outcome.event)
        ]

    def stop(self) -> None:
        """All close and end, together."""
        self._stage.world.end(*self._started)
        for name in self._started:
            self._file(name).unlink(missing_ok=True)
        self._started.clear()

    def _outcome(self, name: str, asked: float) -> Outcome:
        process, offset = self._started[name]
        event = connected(process, f"{name}-0", offset)
        lines = [json.loads(line) for line in Path(process.log).read_text().splitlines() if line[:1] == "{"]
        failures = tuple(str(line.get("reason")) for line in lines if line.get("event") == "request.failed")
        at = datetime.fromisoformat(event["timestamp"]).timestamp()
        return Outcome(name, at - asked, event, failures)

    def _file(self, name: str) -> Path:
        return self._stage.near.directory / f"{name}.yaml"

    def _config(self, name: str, services: list[str]) -> None:
        self._file(name).write_text(json.dumps({"network_services": services}))
