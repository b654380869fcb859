"""The start-up configuration of a VPP that is not the agent's child, but a unit or a container of its own.

``python -m forwarder_vpp.dataplane.vpp.startup RUNTIME_DIR`` prints it, or writes it with ``--output``; with ``--wait``
it waits until that VPP answers. The agent finds it by ``NSM_VPP_API_SOCKET=RUNTIME_DIR/api.sock``.
"""

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from forwarder_vpp.dataplane.vpp.profile import render
from nsm.model.errors import NsmError

_POLL: Final = 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0; 1 if VPP did not answer in time; 2 with the reason for a profile that cannot be filled in."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.wait is not None:
        return _wait(options.runtime_dir / "api.sock", options.wait)
    values = {name: getattr(options, name) for name in ("buffers", "cpu", "pci_address")}
    try:
        text = render(
            options.profile, options.runtime_dir, {key: value for key, value in values.items() if value}
        )
    except NsmError as error:
        parser.exit(2, f"{error.message}\n")
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("startup", description="VPP's start-up configuration of a profile.")
    parser.add_argument(
        "runtime_dir", type=Path, metavar="RUNTIME_DIR", help="where VPP's sockets and its log will be"
    )
    parser.add_argument(
        "--profile",
        default=os.environ.get("NSM_VPP_PROFILE") or "af_packet",
        help="af_packet, af_xdp, dpdk, lab or a template's path (NSM_VPP_PROFILE; %(default)s)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write it there")
    parser.add_argument("--buffers", default="", metavar="N", help="buffers of each NUMA node")
    parser.add_argument("--cpu", default="", metavar="TEXT", help='"main-core 0 corelist-workers 1-3"')
    parser.add_argument("--pci-address", default="", metavar="ADDRESS", help="the NIC of profile dpdk")
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="wait for this VPP instead")
    return parser


def _wait(path: Path, seconds: float) -> int:
    """Until the socket of the VPP that is being started accepts."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError as error:
                if time.monotonic() > deadline:
                    sys.stderr.write(f"VPP does not answer on {path}: {error.strerror}\n")
                    return 1
            else:
                return 0
        time.sleep(_POLL)


if __name__ == "__main__":
    sys.exit(main())
