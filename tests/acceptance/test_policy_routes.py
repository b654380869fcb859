"""Scenario 10: policy-based routes, proven by which endpoint a packet reaches."""

import socket
from pathlib import Path

import yaml

from nsmctl.lab import namespaces
from tests.scenes import Scene

V4, V6 = "198.51.100.1", "2001:db8:99::1"
"""An address that both endpoints have: only the policies decide who gets a packet for it."""

RULES = {
    "one": [
        {"proto": "17", "dstport": "5001", "routes": [{"prefix": f"{V4}/32"}]},
        {"proto": "17", "dstport": "5100-5110", "routes": [{"prefix": f"{V4}/32"}]},
        {"proto": "17", "dstport": "5001", "routes": [{"prefix": f"{V6}/128"}]},
    ],
    "two": [
        {"proto": "17", "srcport": "6000-6010", "dstport": "5002", "routes": [{"prefix": f"{V4}/32"}]},
        {"proto": "17", "dstport": "5200-5210", "routes": [{"prefix": f"{V6}/128"}]},
    ],
}
PACKETS = [  # address, source port, destination port, who gets it
    (V4, 0, 5001, "one"),
    (V4, 0, 5100, "one"),
    (V4, 0, 5110, "one"),
    (V6, 0, 5001, "one"),
    (V4, 6005, 5002, "two"),
    (V6, 0, 5200, "two"),
    (V6, 0, 5210, "two"),
    (V4, 0, 5111, ""),
    (V4, 0, 5002, ""),
    (V6, 0, 5211, ""),
]


def bound(space: Path, address: str, port: int) -> socket.socket:
    """A UDP socket inside a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespaces.entered(space):
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(5.0)
    return made


def reached(lab: Scene, address: str, source: int, port: int) -> str:
    """Which endpoint gets a packet; "" = there is no route for it."""
    listening = {name: bound(lab.netns(name), address, port) for name in RULES}
    anywhere = "::" if ":" in address else "0.0.0.0"
    try:
        with bound(lab.netns("caller"), anywhere, source) as sender:
            try:
                sender.connect((address, port))
                sender.send(b"policy")
            except OSError:
                return ""
            got = [name for name, each in listening.items() if arrived(each)]
            assert len(got) <= 1
            return got[0] if got else ""
    finally:
        for each in listening.values():
            each.close()


def arrived(listener: socket.socket) -> bool:
    """Whether the packet comes; the other endpoint is not waited for as long."""
    listener.settimeout(1.0)
    try:
        return listener.recv(100) == b"policy"
    except TimeoutError:
        return False


def test_five_rules_lead_packets_to_the_right_endpoint(lab: Scene, tmp_path: Path) -> None:
    for number, (name, rules) in enumerate(RULES.items(), 1):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(rules))
        pool = f"[172.16.{number}.0/24],[fd00:172:{number}::/112]"
        lab.endpoint(name, NSM_CIDR_PREFIX=pool, NSM_PBR_CONFIG_PATH=str(file))
        with namespaces.netlink(lab.netns(name)) as ip:
            ip.addr("add", index=1, address=V4, prefixlen=32)
            ip.addr("add", index=1, address=V6, prefixlen=128)
    lab.client("caller", "one-service", "two-service")
    found = [(*packet[:3], reached(lab, *packet[:3])) for packet in PACKETS]
    assert found == PACKETS
