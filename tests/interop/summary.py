"""What the suite says at its end: each peer's version, or which cases did not run because it is missing."""

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import pytest

from . import isolated, peers
from .versions import version_of

WITHOUT_CASE: Final[Mapping[str, str]] = {
    "cmd-nsmgr-proxy": "joins the managers of two domains; our registry refuses name@domain",
    "cmd-registry-proxy-dns": "finds the registry of another domain; our registry refuses name@domain",
}
"""Go components that meet nothing of ours, and why."""


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
        for program in (*peers.ALL, *isolated.ALL):
            path = peers.find(program)
            shown = version_of(path) if path else "MISSING"
            terminalreporter.write_line(f"peer {program}: {shown}", red=path is None)
            for case in self.not_run[program]:
                terminalreporter.write_line(f"  not run: {case}", red=True)
        for program, why in WITHOUT_CASE.items():
            path = peers.find(program)
            version = version_of(path) if path else "MISSING"
            terminalreporter.write_line(f"peer {program}: {version}, no case: {why}")
