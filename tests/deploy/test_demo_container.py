"""``scripts/demo-container`` as anybody runs it, where podman is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.targets import vpp_binary

ROOT = Path(__file__).parents[2]


@pytest.mark.minutes
@pytest.mark.timeout(1500)
def test_it_ends_with_ok() -> None:
    if shutil.which("podman") is None:
        pytest.skip("NO PODMAN: apt-get install -y --no-install-recommends podman runc debootstrap")
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: containers that share the node's network need it")
    if vpp_binary() is None:
        pytest.skip("NO VPP: put vpp on PATH or name it in VPP_BINARY")
    done = subprocess.run(
        [ROOT / "scripts/demo-container", "--seconds", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=1400,
    )
    assert done.stdout.splitlines()[-1].startswith("demo-container: ok"), done.stderr[-4000:]
    assert done.returncode == 0


def test_without_podman_it_says_what_is_missing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NO ROOT: as another user it says that first")
    for program in ("bash", "dirname"):
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    done = subprocess.run(
        [ROOT / "scripts/demo-container"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "podman was not found" in done.stderr
    assert "apt-get install" in done.stderr
    assert done.stdout == "demo-container: failed\n"
