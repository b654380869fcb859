"""``make bench-go``: the same load on the Go chain and on ours; a table on stdout, progress on stderr.

Runs in pieces: ``--section`` measures some and puts them into the file with the others, ``--show`` prints the file.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from rich.console import Console

from nsmctl.errors import LabError
from nsmctl.lab.dataplanes import vpp_binary
from nsmctl.lab.progress import Progress
from perf import machine
from perf.looping import looping
from perf.versus import record, table
from perf.versus.chains import CHAINS, Chain
from perf.versus.sections import FULL, QUICK, SECTIONS, Versus
from tests.interop import peers

_NAMES: Final = [chain.name for chain in CHAINS]
NEEDED: Final = (peers.REGISTRY, peers.MANAGER, peers.FORWARDER, peers.ENDPOINT)


def main() -> int:
    """Exit status 0 when everything asked for could be measured, 1 otherwise."""
    options = _options()
    chains = [chain for chain in CHAINS if chain.name in (options.chains or _NAMES)]
    reason = "" if options.show else refusal(chains)
    if reason:
        sys.stderr.write(f"bench-go: not measured: {reason}\n")
        return 1
    is_complete = options.show or _measure(options, chains)
    found = record.load(options.output)
    if options.json:
        sys.stdout.write(json.dumps(found.json()) + "\n")
    elif options.markdown:
        sys.stdout.write(table.markdown(found, list(SECTIONS)))
    else:
        wide = Console(width=None if sys.stdout.isatty() else 160)
        wide.print(table.table(found, list(SECTIONS)))
    return 0 if is_complete else 1


def refusal(chains: Sequence[Chain]) -> str:
    """Why these chains cannot be measured here; empty if they can."""
    if os.geteuid() != 0:
        return "labs with measured VPPs need root"
    absent = peers.missing(*NEEDED) if any(chain.cast.make == "Go" for chain in chains) else ()
    if absent:
        return f"{', '.join(absent)} neither in NSM_PEERS_DIR nor on PATH; --chain vpp measures ours alone"
    if any(chain.dataplane == "vpp" for chain in chains) and vpp_binary() is None:
        return "no vpp on PATH and no VPP_BINARY; --chain linux measures what needs none"
    return ""


def _measure(options: argparse.Namespace, chains: Sequence[Chain]) -> bool:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the labs are taken down
    effort, progress = QUICK if options.quick else FULL, Progress()
    is_complete = True
    with looping() as calls:
        versus = Versus(chains, effort, progress, calls)
        for section in options.sections or SECTIONS:
            try:
                measured = versus.section(section)
            except LabError as error:
                progress.say(f"{section}: {error}")
                is_complete = False
                continue
            at = datetime.now(UTC).isoformat(timespec="seconds")
            piece = record.Piece(at, machine.description(), tuple(measured))
            record.save(record.load(options.output).having(section, piece), options.output)
    sys.stderr.write(f"written: {options.output}\n")
    return is_complete


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m perf.versus", description=__doc__)
    parser.add_argument(
        "--section",
        dest="sections",
        action="append",
        choices=list(SECTIONS),
        help="measure this one only (may be repeated); default: all, about fifteen minutes",
    )
    parser.add_argument(
        "--chain",
        dest="chains",
        action="append",
        choices=_NAMES,
        help="only this one (may be repeated); default: all",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what the file has")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON on stdout, with every value")
    form.add_argument("--markdown", action="store_true", help="the table for a document")
    parser.add_argument(
        "--output", type=Path, default=record.FILE, help="the file that collects the sections"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
