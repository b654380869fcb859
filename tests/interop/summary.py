"""What the suite says at its end: each peer's version, or which cases did not run because it is missing."""

import os
from collections import defaultdict

import pytest

from . import peers
from .versions import version_of


class Peers:
    """Skips what needs a missing peer, and names it."""

    def __init__(self) -> None:
        self.not_run: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """By the marker ``peers``."""
        for item in items:
            wanted = [str(name) for mark in item.iter_markers("peers") for name in mark.args]
            absent = peers.missing(*wanted)
            is_asked_for = os.environ.get("NSM_SLOW") == "1" or not item.get_closest_marker("minutes")
            for program in absent if is_asked_for else ():
                self.not_run[program].append(item.nodeid)
            if absent:
                reason = f"NO PEER: {', '.join(absent)} neither in NSM_PEERS_DIR nor on PATH"
                item.add_marker(pytest.mark.skip(reason=reason))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line a peer; with a missing one each case that did not run."""
        terminalreporter.section("peers")
        for program in peers.ALL:
            path = peers.find(program)
            shown = version_of(path) if path else "MISSING"
            terminalreporter.write_line(f"peer {program}: {shown}", red=path is None)
            for case in self.not_run[program]:
                terminalreporter.write_line(f"  not run: {case}", red=True)
