"""The Go chain's figures to put beside ours, measured once on the same machine and VPP release.

Client, manager, registry, forwarder and endpoint of 2026-04 on VPP 26.06, two cores. Text, as they were written down.
"""

from typing import Final

GO: Final = {
    ("local", "Request"): "172-184",
    ("local", "refresh"): "54-62",
    ("local", "Close"): "153-171",
    ("local", "50 at once: Request"): "0 of 50",
    ("vxlan", "Request"): "223",
    ("vxlan", "refresh"): "87",
    ("vxlan", "Close"): "190",
    ("wireguard", "Request"): "335",
    ("wireguard", "refresh"): "93",
    ("wireguard", "Close"): "189",
    ("local", "TCP, MTU 1500"): "1.8",
    ("local", "TCP, MTU 9000"): "5.3-6.3",
    ("vxlan", "TCP, MTU 1500"): "1.73",
    ("wireguard", "TCP, MTU 1500"): "1.30",
    ("local", "ping, MTU 1500"): "0.13-0.22",
    ("vxlan", "ping, MTU 1500"): "0.35",
    ("wireguard", "ping, MTU 1500"): "0.41",
    ("local", "forwarder, resident"): "42",
    ("local", "manager, resident"): "37",
}
