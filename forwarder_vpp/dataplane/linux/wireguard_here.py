"""Whether this machine can have WireGuard at all: asked by tools before there is a dataplane."""

import shutil

from forwarder_vpp.dataplane.linux import wireguard_go, wireguard_kernel


def refusal() -> str:
    """Why this process can have no WireGuard tunnel, and what to do; empty if it can. Blocks for a moment."""
    if wireguard_kernel.is_in_kernel():
        return ""
    reason = wireguard_go.refusal(shutil.which(wireguard_go.PROGRAM))
    return f"{wireguard_kernel.NOT_HERE}; {reason}" if reason else ""
