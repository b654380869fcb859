"""The units for plain hosts: systemd accepts them, and they fit the daemons they start."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from controlplane.client.settings import ClientSettings
from controlplane.endpoint.settings import EndpointSettings
from controlplane.manager.settings import ManagerSettings
from controlplane.registry.settings import RegistrySettings
from deploy.containers.image import capabilities
from forwarder_vpp.dataplane.vpp.profile import profile_path
from forwarder_vpp.settings import ForwarderSettings
from nsm.identity.registration import load_registration
from nsm.service.config import NsmSettings, load, variable

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
ETC = ROOT / "deploy/systemd/etc"
SETTINGS: dict[str, type[NsmSettings]] = {
    "registry": RegistrySettings,
    "manager": ManagerSettings,
    "forwarder": ForwarderSettings,
    "endpoint-web": EndpointSettings,
    "client-shop": ClientSettings,
}


def values(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def commands(unit: Path) -> list[list[str]]:
    lines = [line for name in ("ExecStartPre", "ExecStart", "ExecStartPost") for line in values(unit, name)]
    return [shlex.split(line) for line in lines]


def example(name: str) -> dict[str, str]:
    lines = (ETC / f"{name}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_systemd_accepts_them(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NO SYSTEMD-ANALYZE: install the package systemd")
    programs = tmp_path / "bin"
    programs.mkdir()
    started = {Path(word).name for unit in UNITS for command in commands(unit) for word in command[:3]}
    for name in started:
        (programs / name).symlink_to("/bin/true")
    copies = []
    for unit in UNITS:
        name = unit.name.replace("@.", "@example.")
        text = (
            unit.read_text()
            .replace("/opt/nsm/bin/", f"{programs}/")
            .replace("/usr/bin/vpp", f"{programs}/vpp")
        )
        (tmp_path / name).write_text(text)
        copies.append(str(tmp_path / name))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *copies],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [
        line for line in (done.stdout + done.stderr).splitlines() if any(Path(c).name in line for c in copies)
    ]
    assert (done.returncode, ours) == (0, [])


def test_what_systemd_would_refuse_is_noticed(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("NO SYSTEMD-ANALYZE: install the package systemd")
    unit = tmp_path / "broken.service"
    unit.write_text("[Service]\nExecStart=/nowhere/at-all\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "/nowhere/at-all" in done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_they_start_programs_that_are_installed(unit: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    started = commands(unit)
    assert started
    for program, *arguments in started:
        name = Path(program).name
        if name == "python":
            assert arguments[0] == "-m"
            assert importlib.util.find_spec(arguments[1])
        elif program.startswith("/opt/nsm"):
            assert name in scripts


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_is_read_only_has_a_place_for_private_sockets(unit: Path) -> None:
    """Every daemon makes a socket in the temporary directory for a moment when it opens a connection."""
    if values(unit, "ProtectSystem") == ["strict"]:
        assert values(unit, "PrivateTmp") == ["yes"]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_example_is_what_the_daemon_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = SETTINGS[name]
    known = {variable(kind, field) for field in kind.model_fields}
    for key, value in example(name).items():
        assert key in known
        monkeypatch.setenv(key, value)
    settings = load(kind)
    assert settings.name == example(name)["NSM_NAME"]


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        ("nsm-registry.service", "registry"),
        ("nsm-manager.service", "manager"),
        ("forwarder-vpp.service", "forwarder"),
        ("nsm-endpoint@.service", "endpoint-web"),
        ("nsm-client@.service", "client-shop"),
        ("nsm-vpp.service", "vpp"),
    ],
)
def test_the_unit_reads_the_example(unit: str, name: str) -> None:
    file = values(ROOT / "deploy/systemd" / unit, "EnvironmentFile")[0].removeprefix("-")
    instance = name.partition("-")[2]
    assert file.replace("%i", instance) == f"/etc/nsm/{name}.env"


@pytest.mark.parametrize("name", ["registry", "manager", "forwarder", "endpoint-web"])
def test_sockets_and_files_lie_in_folders_that_systemd_makes(name: str) -> None:
    unit = next(
        unit
        for unit in UNITS
        if f"/{name.partition('-')[0]}" in values(unit, "EnvironmentFile")[0].replace("-%i", "")
    )
    instance = name.partition("-")[2]
    made = [f"/run/{value}" for value in values(unit, "RuntimeDirectory")]
    made += [f"/var/lib/{value}" for value in values(unit, "StateDirectory")]
    made = [folder.replace("%i", instance) for folder in made]
    own = dict(word.split("=", 1) for line in values(unit, "Environment") for word in line.split())
    configured = {**own, **example(name)}
    listened = [url for url in configured["NSM_LISTEN_ON"].split(",") if url.startswith("unix://")]
    files = [url.removeprefix("unix://") for url in listened]
    files += [configured[key] + "/x" for key in ("NSM_STATE_DIR",) if key in configured]
    files += [configured[key] for key in ("NSM_STORE",) if key in configured]
    assert files
    for file in files:
        assert str(Path(file).parent) in made


def test_the_identities_are_those_of_the_examples() -> None:
    found = load_registration(ETC / "identity.yaml", "example.org", Path("/run/nsm/identity"))
    names = {entry.spiffe_id.rpartition("/")[2] for entry in found.entries}
    assert names == {example(name)["NSM_NAME"] for name in SETTINGS}


def test_the_profile_of_the_example_exists() -> None:
    assert profile_path(example("vpp")["NSM_VPP_PROFILE"]).exists()


@pytest.mark.parametrize(("unit", "stage"), [("forwarder-vpp.service", "agent"), ("nsm-vpp.service", "vpp")])
def test_the_unit_may_what_the_image_needs(unit: str, stage: str) -> None:
    bounding = values(ROOT / "deploy/systemd" / unit, "CapabilityBoundingSet")[0].split()
    assert {f"CAP_{name}" for name in capabilities(stage)} <= set(bounding)
