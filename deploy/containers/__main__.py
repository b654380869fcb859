"""``make demo-container``: see ``demonstration``. The last line starts with ``demo-container: ok`` only if all held."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.containers import host_vpp, image
from deploy.containers.demonstration import RATE, Demonstration, settled
from deploy.containers.mesh import PROFILE, Images, Mesh
from deploy.containers.podman import Podman
from nsmctl.errors import LabError
from nsmctl.lab import census, namespaces
from nsmctl.lab.dataplanes import vpp_binary
from nsmctl.lab.progress import Progress
from nsmctl.lab.topology import RUN, Topology, mark

NAME: Final = "democ"
LOGS: Final = Path("/tmp/nsm-demo-container-logs")  # noqa: S108 - for reading after a failure, as the lab does


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 if all held, 1 with the reasons otherwise."""
    options = _options(argv)
    progress = Progress()
    try:
        demonstration = run(options, progress)
    except LabError as error:
        sys.stderr.write(f"demo-container: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  {error.hint}\n")
        sys.stdout.write("demo-container: failed\n")
        return 1
    except KeyboardInterrupt:
        sys.stdout.write("demo-container: interrupted, everything removed\n")
        return 130
    for problem in demonstration.problems:
        sys.stderr.write(f"  {problem}\n")
    if demonstration.problems:
        sys.stdout.write(f"demo-container: failed: {len(demonstration.problems)} claims did not hold\n")
        return 1
    sys.stdout.write(
        f"demo-container: ok: IP and ETHERNET through containers of VPP and agent on {options.nodes} node(s),"
        f" {demonstration.probes} probes, 0 lost, agents replaced under traffic, nothing left behind\n"
    )
    return 0


def run(options: argparse.Namespace, progress: Progress) -> Demonstration:
    """Images, mesh, demonstration, removal, census."""
    if os.geteuid() != 0:
        raise LabError("containers that share the node's network need root", hint="sudo make demo-container")
    podman = Podman(NAME)
    images = _images(podman, options, progress)
    topology = Topology(NAME, options.nodes, "vpp")
    _remove(podman, topology)  # what a run that was killed has left
    before = _machine(podman, topology)
    mesh = Mesh(podman, topology, images, progress)
    with _removed(mesh, progress), _vppctl(mesh):
        mesh.build()
        demonstration = Demonstration(mesh, options.seconds, options.rate)
        demonstration.run()
    left = settled(lambda: before.difference(_machine(podman, topology)))
    demonstration.problems += [f"left behind: {line}" for line in left]
    demonstration.problems += [f"left behind: container {name}" for name in podman.containers()]
    return demonstration


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "demo-container",
        description="Network services between containers: VPP and the agent as two containers of each node.",
        epilog="environment: NSM_BASE_IMAGE (as --base-image), VPP_BINARY (the VPP of --vpp-from-host)",
    )
    parser.add_argument(
        "--base-image",
        default=os.environ.get("NSM_BASE_IMAGE", ""),
        help="build on this image; default: that of Dockerfile.vpp, or one made by debootstrap if it cannot be pulled",
    )
    parser.add_argument(
        "--vpp-from-host",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="mount this machine's VPP into its container, or build the stage `vpp` from FD.io's packages; "
        "default: this machine's if there is one",
    )
    parser.add_argument("--no-build", action="store_true", help="use the images of the last run")
    parser.add_argument("--nodes", type=int, choices=(1, 2), default=2, help="%(default)s")
    parser.add_argument("--seconds", type=float, default=5.0, help="of probes for each payload (%(default)s)")
    parser.add_argument("--rate", type=float, default=RATE, help="probes a second (%(default)s)")
    return parser.parse_args(argv)


def _images(podman: Podman, options: argparse.Namespace, progress: Progress) -> Images:
    base = image.base(podman, options.base_image, progress)
    if not options.no_build:
        with progress.step(f"stage `agent` of Dockerfile.vpp built on {base}"):
            image.build(podman, "agent", image.AGENT, base)
    from_host = options.vpp_from_host if options.vpp_from_host is not None else vpp_binary() is not None
    if not from_host:
        if options.no_build:
            return Images(base, image.AGENT, image.VPP, "/usr/bin/vpp")
        with progress.step(f"stage `vpp` of Dockerfile.vpp built on {base}"):
            image.build(podman, "vpp", image.VPP, base)
        return Images(base, image.AGENT, image.VPP, "/usr/bin/vpp")
    images = host_vpp.images(podman, base, image.AGENT, PROFILE)
    progress.say(f"VPP: {images.vpp_binary} of this machine, mounted into {base}")
    return images


def _machine(podman: Podman, topology: Topology) -> census.Census:
    podman.containers()  # podman's own files exist from its first call on
    return census.take(mark=mark(topology.name), directories=[topology.directory])


@contextmanager
def _removed(mesh: Mesh, progress: Progress) -> Iterator[None]:
    """The mesh goes at the end; the logs stay until the next run."""
    try:
        yield
    finally:
        _keep_logs(mesh.topology.directory)
        with progress.step(f"containers, nodes and files removed; logs are in {LOGS}"):
            _remove(mesh.podman, mesh.topology)


def _keep_logs(directory: Path) -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    for file in directory.rglob("*.log"):
        target = LOGS / file.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _remove(podman: Podman, topology: Topology) -> None:
    podman.remove_all()
    for space in namespaces.names():
        if space.startswith(f"{topology.name}-"):
            namespaces.delete(space)
    shutil.rmtree(topology.directory, ignore_errors=True)
    if RUN.is_dir() and not any(RUN.iterdir()):
        RUN.rmdir()


@contextmanager
def _vppctl(mesh: Mesh) -> Iterator[None]:
    """A ``vppctl`` for the census: this machine's, else that of a VPP's container, which sees every node's sockets."""
    if shutil.which("vppctl"):
        yield
        return
    folder = mesh.topology.directory / "bin"
    folder.mkdir(parents=True)
    script = folder / "vppctl"
    container = mesh.name(f"{mesh.topology.nodes[0].name}/vpp")
    script.write_text(f'#!/bin/sh\nexec podman exec {container} /usr/bin/vppctl "$@"\n')
    script.chmod(0o755)
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{folder}:{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path


if __name__ == "__main__":
    sys.exit(main())
