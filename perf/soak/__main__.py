"""``make soak``: clients come and go against Go peers; a line a minute, a verdict as the last line."""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import repeat
from math import inf
from pathlib import Path
from threading import Event
from typing import Final

import structlog
from rich import box
from rich.console import Console
from rich.table import Table

from nsmctl.errors import LabError
from nsmctl.lab.dataplanes import vpp_binary
from nsmctl.lab.topology import Topology
from perf.figures import pressure
from perf.looping import Calls, looping
from perf.soak.churn import Churn
from perf.soak.held import Held
from perf.soak.labs import PLANS, Lab, Plan
from perf.soak.verdict import LEAST, Checkpoint, Growth, growths, least
from perf.worlds import played
from tests.interop import peers

MINUTE_S: Final = 60.0
CHURN_S: Final = 45.0
"""So much of a minute clients come and go; the rest is for the last of them to be gone, and to look."""
RESULT: Final = Path(__file__).parents[1] / "results" / "soak.json"
LOOKS: Final = 3
"""At each checkpoint: what is there at one of them only is a call under way."""
SHOWN: Final = 5
"""So many of each kind of problem are told in full."""


class Soak:
    """Labs that are soaked together."""

    def __init__(self, labs: Sequence[Lab], calls: Calls) -> None:
        self._stopping = Event()
        self.churns = [Churn(lab, calls, self._stopping) for lab in labs]
        self.checkpoints: list[Checkpoint] = []
        self._started = time.monotonic()

    def run(self, minutes: int, output: Path) -> None:
        """One checkpoint a minute, kept in ``output`` (JSON); those of a busy machine come later, but as many."""
        with ThreadPoolExecutor(len(self.churns)) as pool, self._stopped():
            for minute in range(minutes):
                begun = max(time.monotonic(), self._started + MINUTE_S * minute)
                list(pool.map(Churn.until, self.churns, repeat(begun + CHURN_S)))
                self.checkpoints.append(self._checkpoint(pool))
                say(self._line())
                for line in (line for churn in self.churns for line in churn.new_failures()):
                    say(f"           {line}")
                keep(self.checkpoints, output)

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """At its end, whyever, the rounds under way are the last."""
        try:
            yield
        finally:
            self._stopping.set()

    def _checkpoint(self, pool: ThreadPoolExecutor) -> Checkpoint:
        """What is there, and what of it should not be; asked of all labs."""
        problems = [
            line for found in pool.map(lambda churn: churn.lab.problems(), self.churns) for line in found
        ]
        holdings = least([self._look() for _ in range(LOOKS)])
        return Checkpoint(time.monotonic() - self._started, self.made, holdings, problems)

    def _look(self) -> dict[str, Held]:
        """What every process of ours holds now; takes a second or two."""
        return {name: held for churn in self.churns for name, held in churn.lab.holdings().items()}

    @property
    def made(self) -> int:
        """Connections made so far."""
        return sum(churn.made for churn in self.churns)

    @property
    def failures(self) -> list[str]:
        """Calls and visits that failed."""
        return [line for churn in self.churns for line in churn.failures]

    @property
    def upstreams(self) -> list[str]:
        """Faults of Go components that a second try mended."""
        return [line for churn in self.churns for line in churn.upstreams]

    def _line(self) -> str:
        last = self.checkpoints[-1]
        fds = sum(sum(held.fds.values()) for held in last.held.values())
        tasks = sum(sum(held.tasks.values()) for held in last.held.values())
        memory = sum(held.anonymous_kib for held in last.held.values()) / 1024
        wrong = f", NOT AS IT SHOULD BE: {'; '.join(last.problems[:SHOWN])}" if last.problems else ""
        return (
            f"{last.seconds / 60:5.1f} min  {last.made} connections made, {len(self.failures)} failures, "
            f"{len(self.upstreams)} of Go's own faults; "
            f"{len(last.held)} processes of ours: {fds} fds, {tasks} tasks, {memory:.1f} MiB; "
            f"processor waited for {pressure():.0f} %{wrong}"
        )


def main() -> int:
    """Exit status 0 when nothing grew and nothing was lost."""
    options = _options()
    if options.show:
        return judged_again(options.output)
    reason = refusal() or homeless(options.output)
    if reason:
        say(f"soak: not run: {reason}")
        return 1
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the labs are taken down
    try:
        problems = soaked(options.minutes, options.output)
    except LabError as error:
        say(f"soak: FAILED: {error}")
        return 1
    say(f"soak: {'FAILED: ' + '; '.join(problems) if problems else 'ok'}")
    return 1 if problems else 0


def judged_again(file: Path) -> int:
    """Say what grew in the run that ``file`` has; exit status 0 when nothing did."""
    try:
        grown = growths(recorded(file))
    except (OSError, ValueError, TypeError, LookupError) as error:
        say(f"soak: {file}: expected the record of a run, got {type(error).__name__}: {error}")
        return 1
    if not grown:
        say(f"soak: {file}: too short to be judged, {LEAST + 1} minutes at least")
        return 1
    show(grown)
    leaks = [str(growth) for growth in grown if growth.is_leak]
    say(f"soak: grown in {file}: {'; '.join(leaks) or 'nothing'}")
    return 1 if leaks else 0


def refusal() -> str:
    """Why there can be no soak here; empty if there can."""
    absent = list(peers.missing(*peers.CONTROL_PLANE))
    absent += [] if vpp_binary() else ["vpp"]
    reasons = [f"{', '.join(absent)} neither on PATH nor in NSM_PEERS_DIR or VPP_BINARY"] if absent else []
    return "; ".join(reasons if os.geteuid() == 0 else [*reasons, "labs with VPPs need root"])


def homeless(file: Path) -> str:
    """Why no record can be kept in ``file``, told before half an hour is spent on one; its folder is made."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            return ""
    except OSError as error:
        return f"--output {file}: expected a file that can be written, got {error.strerror}: {error.filename}"


def soaked(minutes: int, output: Path) -> list[str]:
    """Run it, print its table, and say what was wrong."""
    with ExitStack() as stack:
        labs = [Lab(plan, stack.enter_context(played(_topology(plan), plan.cast))) for plan in PLANS]
        probing = stack.enter_context(ExitStack())
        for lab in labs:
            lab.furnish(probing)
            say(f"{lab.name}: {lab.plan.name}; {len(lab.lasting)} connections last")
        soak = Soak(labs, stack.enter_context(looping()))
        soak.run(minutes, output)
        lost = [line for lab in labs for line in lab.lost()]
    for line, number in Counter(soak.upstreams).most_common(SHOWN):
        say(f"Go's own, and tried again ({number}): {line}")
    grown = growths(soak.checkpoints)
    show(grown)
    return [
        *(str(growth) for growth in grown if growth.is_leak),
        *lost,
        *(line for one in soak.checkpoints[-1:] for line in one.problems),
        *soak.failures[:SHOWN],
    ]


def keep(checkpoints: Sequence[Checkpoint], file: Path) -> None:
    """What ``recorded`` reads."""
    file.write_text(json.dumps([asdict(one) for one in checkpoints]) + "\n")


def recorded(file: Path) -> list[Checkpoint]:
    """The checkpoints of a run that was kept."""
    return [
        Checkpoint(**{**one, "held": {name: Held(**held) for name, held in one["held"].items()}})
        for one in json.loads(file.read_text())
    ]


def show(grown: Sequence[Growth]) -> None:
    """Print the table."""
    Console(width=None if sys.stdout.isatty() else 140).print(table(grown))


def table(grown: Sequence[Growth]) -> Table:
    """Memory and objects of every process, and whatever else changed."""
    shown = Table(box=box.SIMPLE)
    for name in (
        "process",
        "measure",
        "first third",
        "last third",
        "per 1,000 connections",
        "in each half",
        "tolerated",
        "",
    ):
        shown.add_column(name, justify="left" if name in {"process", "measure", ""} else "right")
    for one in grown:
        if one.first != one.last or 0 < one.limit < inf:
            limit = "its limit" if one.limit == inf else f"{one.limit:,.0f}"
            halves = " and ".join(f"{half:+,.0f}" for half in one.halves)
            numbers = (*(f"{number:,.0f}" for number in (one.first, one.last, one.each)), halves, limit)
            shown.add_row(one.process, one.measure, *numbers, "GREW" if one.is_leak else "")
    return shown


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _topology(plan: Plan) -> Topology:
    return Topology(f"soak{plan.dataplane}{os.getpid()}", 2, plan.dataplane)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.soak", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, default=30, help="how long (default: 30)")
    parser.add_argument("--show", action="store_true", help="judge what grew in the run that is in --output")
    parser.add_argument("--output", type=Path, default=RESULT, help="where every checkpoint goes, as JSON")
    return parser.parse_args()


def _minutes(text: str) -> int:
    minutes = int(text)
    if minutes < LEAST + 1:
        raise argparse.ArgumentTypeError(f"{LEAST + 1} at least: fewer say nothing about growth")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
