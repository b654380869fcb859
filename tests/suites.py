"""One line per suite at the end of a run: ``suite NAME [vpp 26.06|linux|fake|-]: N passed, M skipped (reason)``.

A suite is a folder of ``tests/`` on one dataplane; the dataplane is the test's marker (``vpp``, ``linux``, ``fake``).
Where a VPP is installed, a skipped VPP case or a VPP suite in which nothing passed fails the run, unless it was not
asked for: a green run in which they did not happen would prove nothing. What tests measured without judging it
follows, one line a test.
"""

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DATAPLANES = ("vpp", "linux", "fake")
NOT_ASKED_FOR = "NOT ASKED FOR: takes minutes, NSM_SLOW=1 runs it"
MEASURED = "measured"
"""Name of the property (``record_property``) with which a test tells a number that it does not judge."""


@dataclass
class Suite:
    """What became of one suite's tests."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def missed(self) -> int:
        """Skipped although asked for."""
        return self.skipped - self.reasons[NOT_ASKED_FOR]

    def line(self, name: str, dataplane: str) -> str:
        """The summary line."""
        counts = [f"{self.passed} passed"]
        if self.failed:
            counts.append(f"{self.failed} failed")
        if self.skipped:
            reasons = "; ".join(reason for reason, _ in self.reasons.most_common(4))
            counts.append(f"{self.skipped} skipped ({reasons})")
        return f"suite {name} [{dataplane}]: {', '.join(counts)}"


def vpp_binary() -> str | None:
    """The VPP that the tests use: ``VPP_BINARY``, else ``vpp`` on PATH."""
    return os.environ.get("VPP_BINARY") or shutil.which("vpp")


def vpp_release() -> str:
    """``26.06`` of the installed VPP, ``not installed`` without one."""
    binary = vpp_binary()
    if binary is None:
        return "not installed"
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=30)
    words = done.stdout.split()
    return words[1].lstrip("v").partition("-")[0] if len(words) > 1 else "unknown"


class Summary:
    """Collects outcomes while the tests run."""

    def __init__(self) -> None:
        self.suites: dict[tuple[str, str], Suite] = {}
        self.where: dict[str, tuple[str, str]] = {}
        self.failures: dict[str, None] = {}
        self.measured: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember which suite each test belongs to."""
        for item in items:
            parts = Path(str(item.path)).parts
            name = parts[parts.index("tests") + 1] if "tests" in parts else parts[-2]
            dataplane = next((mark for mark in DATAPLANES if item.get_closest_marker(mark)), "-")
            self.where[item.nodeid] = (name, dataplane)
            if item.get_closest_marker("minutes") and os.environ.get("NSM_SLOW") != "1":
                item.add_marker(pytest.mark.skip(reason=NOT_ASKED_FOR))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        key = self.where.get(report.nodeid)
        if key is None:
            return
        suite = self.suites.setdefault(key, Suite())
        if report.skipped:
            suite.skipped += 1
            text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            suite.reasons[text.removeprefix("Skipped: ")] += 1
        elif report.failed:
            suite.failed += 1
            self.failures[report.nodeid] = None
        elif report.when == "call":
            suite.passed += 1
        if report.when == "call":
            test = report.nodeid.rpartition("::")[2]
            self.measured += [f"{test}: {text}" for name, text in report.user_properties if name == MEASURED]

    def unproven(self) -> list[str]:
        """Why a run in which nothing failed still proves too little."""
        if vpp_binary() is None:
            return []
        return [
            f"suite {name} [vpp]: a VPP is installed, but {suite.missed} cases were skipped and {suite.passed} passed"
            for (name, dataplane), suite in sorted(self.suites.items())
            if dataplane == "vpp"
            and (suite.missed or (not suite.passed and not suite.reasons[NOT_ASKED_FOR]))
        ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that proves too little; ``NSM_FAILED_FILE`` gets the ids of what failed, one a line."""
        if "NSM_FAILED_FILE" in os.environ:
            Path(os.environ["NSM_FAILED_FILE"]).write_text("".join(f"{node}\n" for node in self.failures))
        if session.exitstatus == pytest.ExitCode.OK and self.unproven():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the lines."""
        release = vpp_release()
        terminalreporter.section("suites")
        for (name, dataplane), suite in sorted(self.suites.items()):
            shown = f"vpp {release}" if dataplane == "vpp" else dataplane
            terminalreporter.write_line(suite.line(name, shown))
        for line in self.measured:
            terminalreporter.write_line(f"measured {line}")
        for line in self.unproven():
            terminalreporter.write_line(f"FAILED: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Register the collector."""
    config.pluginmanager.register(Summary(), "nsm-suites")
