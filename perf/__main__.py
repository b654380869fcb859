"""``make bench``: measure, print a table on stdout and write JSON; progress on stderr. ``micro``: the pure rooms."""

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import structlog
from rich.console import Console

from nsmctl.errors import LabError
from nsmctl.lab.dataplanes import vpp_binary
from nsmctl.lab.progress import Progress
from perf import machine, report
from perf.bench import Bench
from perf.plan import COLUMNS, FULL, QUICK


def main() -> int:
    """Exit status 0 when everything could be measured, 1 when a column could not."""
    options = _options()
    if options.what == "micro":
        return micro()
    if os.geteuid() != 0:
        sys.stderr.write("make bench: labs with measured VPPs need root; `make bench ARGS=micro` does not\n")
        return 1
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the lab is taken down
    progress = Progress()
    described = machine.description()
    bench = Bench(QUICK if options.quick else FULL, progress)
    is_complete = True
    for name in options.columns or default_columns():
        try:
            bench.column(COLUMNS[name])
        except LabError as error:
            progress.say(f"{name}: {error}")
            is_complete = False
        report.save(bench.figures, described, options.output)
    if bench.figures:
        wide = Console(width=None if sys.stdout.isatty() else 160)
        wide.print(report.table(bench.figures, described))
    sys.stderr.write(f"written: {options.output}\n")
    return 0 if is_complete else 1


def default_columns() -> list[str]:
    """All that this machine can run."""
    return [
        name
        for name, column in COLUMNS.items()
        if name == "fake" or column.dataplane == "linux" or vpp_binary()
    ]


def micro() -> int:
    """pytest-benchmark over ``perf/micro``."""
    words = [sys.executable, "-m", "pytest", "perf/micro", "--benchmark-enable", "-q", "-p", "no:randomly"]
    words += ["--benchmark-columns=min,median,ops,rounds", "--benchmark-sort=name"]
    return subprocess.run(words, cwd=Path(__file__).parents[1], check=False).returncode


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=["all", "micro"], default="all", help="micro: only pytest-benchmark"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer of everything, one MTU: about two minutes"
    )
    parser.add_argument(
        "--column",
        dest="columns",
        action="append",
        choices=list(COLUMNS),
        help="measure this one only (may be repeated); default: all that this machine can run",
    )
    parser.add_argument(
        "--output", type=Path, default=report.RESULTS / "latest.json", help="where the JSON goes"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
