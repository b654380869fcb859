"""The start-up configuration of a VPP that is not the agent's child, but a unit or a container of its own.

``python -m forwarder_vpp.dataplane.vpp.startup RUNTIME_DIR`` prints it; the agent finds that VPP by
``NSM_VPP_API_SOCKET=RUNTIME_DIR/api.sock``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from forwarder_vpp.dataplane.vpp.profile import render
from nsm.model.errors import NsmError


def main(argv: Sequence[str] | None = None) -> int:
    """Print the configuration; exit status 2 with the reason for a profile that cannot be filled in."""
    parser = argparse.ArgumentParser(
        "startup", description="Print VPP's start-up configuration of a profile."
    )
    parser.add_argument(
        "runtime_dir", type=Path, metavar="RUNTIME_DIR", help="where VPP's sockets and its log will be"
    )
    parser.add_argument(
        "--profile", default="af_packet", help="af_packet, dpdk, lab, ... or a template's path"
    )
    parser.add_argument("--buffers", default="", metavar="N", help="buffers of each NUMA node")
    parser.add_argument("--cpu", default="", metavar="TEXT", help='"main-core 0 corelist-workers 1-3"')
    parser.add_argument("--pci-address", default="", metavar="ADDRESS", help="the NIC of profile dpdk")
    options = parser.parse_args(argv)
    values = {name: getattr(options, name) for name in ("buffers", "cpu", "pci_address")}
    try:
        text = render(
            options.profile, options.runtime_dir, {key: value for key, value in values.items() if value}
        )
    except NsmError as error:
        parser.exit(2, f"{error.message}\n")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
