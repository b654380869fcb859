"""What cannot be measured here is refused with the names of what is missing."""

import os

import pytest

from perf.soak.__main__ import refusal as refusal_of_soak
from perf.versus.__main__ import refusal
from perf.versus.chains import CHAINS

OURS = [chain for chain in CHAINS if chain.cast.make == "ours"]
LINUX = [chain for chain in OURS if chain.dataplane == "linux"]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with root and nothing else."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("NSM_PEERS_DIR", "VPP_BINARY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("bare")
def test_a_comparison_names_the_go_programs_that_are_missing() -> None:
    reason = refusal(CHAINS)
    for program in ("cmd-registry-memory", "cmd-nsmgr", "cmd-forwarder-vpp", "cmd-nse-icmp-responder"):
        assert program in reason
    assert "NSM_PEERS_DIR" in reason


@pytest.mark.usefixtures("bare")
def test_ours_need_no_go_programs_and_linux_no_vpp() -> None:
    assert refusal(OURS).startswith("no vpp on PATH")
    assert refusal(LINUX) == ""


@pytest.mark.usefixtures("bare")
def test_a_soak_names_everything_that_is_missing() -> None:
    reason = refusal_of_soak()
    for program in ("cmd-registry-memory", "cmd-nsmgr", "cmd-nsc", "cmd-nse-icmp-responder", "vpp"):
        assert program in reason


@pytest.mark.usefixtures("bare")
def test_both_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "need root" in refusal(LINUX)
    assert "need root" in refusal_of_soak()
