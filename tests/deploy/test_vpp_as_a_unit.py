"""Every profile boots a real VPP the way ``nsm-vpp.service`` starts it, or says in its first line what it needs."""

import asyncio
import sys
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp import startup
from forwarder_vpp.dataplane.vpp.session import VppSession
from tests.contract.targets import vpp_binary

FOLDER = Path(__file__).parents[2] / "vpp-config"
PROFILES = sorted(file.stem for file in FOLDER.glob("*.conf"))
HARDWARE = {"dpdk": "a NIC or an SR-IOV VF of its own", "af_xdp": "a NIC that can AF_XDP"}
COMMAND = (sys.executable, "-m", startup.__name__)


def write(profile: str, folder: Path) -> Path:
    file = folder / "startup.conf"
    words = ["--profile", profile, "--pci-address", "0000:03:00.0", "--output", str(file), str(folder)]
    assert startup.main(words) == 0
    return file


@pytest.mark.vpp
@pytest.mark.parametrize("profile", [name for name in PROFILES if name not in HARDWARE])
async def test_it_boots(profile: str, tmp_path: Path) -> None:
    binary = vpp_binary()
    assert binary is not None
    with (tmp_path / "output").open("wb") as output:
        command = (binary, "-c", str(write(profile, tmp_path)))
        vpp = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)
    try:
        waiting = await asyncio.create_subprocess_exec(*COMMAND, "--wait", "60", str(tmp_path))
        assert await waiting.wait() == 0, (tmp_path / "output").read_text(errors="replace")[-1000:]
        session = VppSession(str(tmp_path / "api.sock"))
        await session.connect()
        assert session.version.startswith("26.06")
        await session.close()
    finally:
        vpp.terminate()
        async with asyncio.timeout(30):
            await vpp.wait()


@pytest.mark.parametrize("profile", HARDWARE)
def test_the_others_name_their_hardware(profile: str, tmp_path: Path) -> None:
    assert HARDWARE[profile] in write(profile, tmp_path).read_text().splitlines()[0]


@pytest.mark.parametrize("profile", PROFILES)
def test_each_line_has_its_reason(profile: str) -> None:
    """Lines that set something say why; the names of sections and their ends do not."""
    lines = (FOLDER / f"{profile}.conf").read_text().splitlines()
    bare = [
        line for line in lines if line.strip() not in {"", "}"} and not line.endswith("{") and "#" not in line
    ]
    allowed = ("cli-listen", "log ", "socket-name", "page-size")
    assert [line for line in bare if not line.strip().startswith(allowed)] == []


def test_a_vpp_that_is_not_there_is_told_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.main(["--wait", "0.1", str(tmp_path)]) == 1
    assert f"VPP does not answer on {tmp_path}/api.sock" in capsys.readouterr().err


def test_an_unknown_profile_is_told_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        startup.main(["--profile", "none", str(tmp_path)])
    assert ended.value.code == 2
    assert "no profile 'none'" in capsys.readouterr().err


def test_the_profile_comes_from_the_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NSM_VPP_PROFILE", "lab")
    assert startup.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("# VPP for a laptop")
