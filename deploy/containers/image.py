"""The images: a base that can be had here, and the stages of ``Dockerfile.vpp`` on it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from deploy.containers.podman import Podman
from nsmctl.errors import LabError
from nsmctl.lab.progress import Progress

ROOT: Final = Path(__file__).parents[2]
DOCKERFILE: Final = ROOT / "Dockerfile.vpp"
AGENT: Final = "localhost/nsm-agent:demo"
VPP: Final = "localhost/nsm-vpp:demo"
OWN_BASE: Final = "localhost/nsm-debian-base:bookworm"
BUILD_S: Final = 1800.0

_STAGE: Final = re.compile(r"^FROM \S+ AS (\w+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'\borg\.nsm\.([\w-]+)="([^"]*)"')
_PIP_OPTION: Final = re.compile(r"^(?::env:|\w+)\.([\w.-]+)='(.*)'$")


def labels(stage: str) -> dict[str, str]:
    """The ``org.nsm.*`` labels of a stage, as written in the Dockerfile."""
    _, *parts = _STAGE.split(DOCKERFILE.read_text())
    stages = dict(zip(parts[::2], parts[1::2], strict=True))
    return dict(_LABEL.findall(stages[stage]))


def capabilities(stage: str) -> tuple[str, ...]:
    """What a stage says it needs, without ``CAP_``."""
    return tuple(labels(stage)["capabilities"].split(","))


def default_base() -> str:
    """The Dockerfile's own."""
    found = re.search(r"^ARG NSM_BASE_IMAGE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def base(podman: Podman, wanted: str, progress: Progress) -> str:
    """``wanted``, else the default if it is here or can be pulled, else one made by debootstrap."""
    for image in filter(None, (wanted, default_base(), "" if wanted else OWN_BASE)):
        if podman.has_image(image):
            return image
    image = wanted or default_base()
    try:
        podman.call("pull", "--quiet", image, timeout=300)
    except LabError as error:
        if wanted:
            raise
        progress.say(f"base image {image} cannot be pulled here")
        if shutil.which("debootstrap", path=_paths()) is None:
            raise LabError(
                f"{image} cannot be pulled, and there is no debootstrap to make a base image with: {error.message}",
                hint="apt-get install -y --no-install-recommends debootstrap, or name one in NSM_BASE_IMAGE",
            ) from error
    else:
        progress.say(f"base image {image} pulled")
        return image
    with progress.step("base image made by debootstrap"):
        _debootstrap(podman)
    return OWN_BASE


def build(podman: Podman, stage: str, tag: str, base_image: str) -> None:
    """Build one stage of the Dockerfile. LabError with the end of the build's output."""
    with tempfile.TemporaryDirectory(prefix="nsm-build-") as folder:
        podman.call(
            "build",
            *("--isolation", "chroot", "--format", "docker", "--pull=never"),
            *("--file", str(DOCKERFILE), "--target", stage, "--tag", tag),
            *("--build-arg", f"NSM_BASE_IMAGE={base_image}", *_pip_secrets(Path(folder))),
            str(ROOT),
            timeout=BUILD_S,
        )


def _debootstrap(podman: Podman) -> None:
    with tempfile.TemporaryDirectory(prefix="nsm-base-") as folder:
        tree, archive = Path(folder) / "tree", Path(folder) / "base.tar"
        _run("debootstrap", "--variant=minbase", "bookworm", str(tree))
        _run("tar", "-C", str(tree), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(archive), ".")
        podman.call("import", "--quiet", str(archive), OWN_BASE, timeout=BUILD_S)


def _run(*command: str) -> None:
    environment = {**os.environ, "PATH": _paths()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise LabError(f"{shlex.join(command)} failed:\n" + "\n".join(last))


def _paths() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _pip_secrets(folder: Path) -> list[str]:
    """This machine's pip configuration for the time of the build; folders of wheels stay outside."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    options = {
        found[1]: found[2].encode().decode("unicode_escape")
        for line in listed.splitlines()
        if (found := _PIP_OPTION.match(line))
    }
    certificates = options.get("cert", "")
    words = []
    if certificates:
        options["cert"] = "/run/secrets/pip-cert"
        words += ["--secret", f"id=pip-cert,src={certificates}"]
    kept = {name: value for name, value in options.items() if name == "cert" or not value.startswith("/")}
    if kept:
        file = folder / "pip.conf"
        file.touch(mode=0o600)
        file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in kept.items()))
        words += ["--secret", f"id=pip.conf,src={file}"]
    return words
