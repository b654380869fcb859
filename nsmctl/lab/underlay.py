"""The cable between the nodes: a bridge in a namespace of its own, one port a node.

Nothing appears in the host's namespace. Node ``i`` (from 1) has ``eth0`` with 10.254.0.i/24 and fd00:254::i/64.
Faults are put on the ports, outside the nodes, so that they meet every packet however a dataplane sends it
(af_packet passes by the node's own nftables).
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nsmctl.errors import LabError
from nsmctl.lab import namespaces

BRIDGE: Final = "br0"
UPLINK: Final = "eth0"
_TABLE: Final = "nsm_lab"


@dataclass(frozen=True, slots=True)
class Port:
    """One node on the cable: port ``name`` on the bridge, addresses of the node's end."""

    name: str
    namespace: Path
    number: int

    @property
    def ip4(self) -> str:
        """The node's IPv4 underlay address."""
        return f"10.254.0.{self.number}"

    @property
    def ip6(self) -> str:
        """The node's IPv6 underlay address."""
        return f"fd00:254::{self.number:x}"


@dataclass(frozen=True, slots=True)
class Underlay:
    """The cable: ``namespace`` is the switch's own, ``mtu`` in bytes on every link."""

    namespace: Path
    mtu: int = 1500

    def build(self) -> None:
        """The bridge, up; the namespace exists already."""
        with namespaces.netlink(self.namespace) as ip:
            ip.link("add", ifname=BRIDGE, kind="bridge")
            ip.link("set", index=index_of(ip, BRIDGE), mtu=self.mtu, state="up")

    def attach(self, port: Port) -> None:
        """Plug a node in: a veth pair, one end a port, the other ``eth0`` in the node."""
        with port.namespace.open("rb") as node, namespaces.netlink(self.namespace) as ip:
            ip.link(
                "add",
                ifname=port.name,
                kind="veth",
                mtu=self.mtu,
                peer={"ifname": UPLINK, "net_ns_fd": node.fileno(), "mtu": self.mtu},
            )
            ip.link("set", index=index_of(ip, port.name), master=index_of(ip, BRIDGE), state="up")
        with namespaces.netlink(port.namespace) as ip:
            index = index_of(ip, UPLINK)
            ip.addr("add", index=index, address=port.ip4, prefixlen=24)
            ip.addr("add", index=index, address=port.ip6, prefixlen=64, flags=0x02)  # IFA_F_NODAD
            ip.link("set", index=index, mtu=self.mtu, state="up")

    def set_port(self, name: str, *, up: bool) -> None:
        """Pull a node's cable or put it back: everything stops, control plane too."""
        with namespaces.netlink(self.namespace) as ip:
            ip.link("set", index=index_of(ip, name), state="up" if up else "down")

    def cut_tunnels(self, *ports: str, match: str = "meta l4proto udp") -> None:
        """Drop the tunnels' packets arriving on these ports (UDP, and ESP if asked); TCP control passes.

        ``match`` is an nftables expression. LabError when nftables cannot do it.
        """
        chains = "".join(
            f'chain {name} {{ type filter hook ingress device "{name}" priority 0; {match} counter drop; }}\n'
            for name in ports
        )
        self._nft(
            f"table netdev {_TABLE} {{}}\ndelete table netdev {_TABLE}\ntable netdev {_TABLE} {{\n{chains}}}"
        )

    def heal_tunnels(self) -> dict[str, int]:
        """End the cut; packets it dropped, by port. Empty if there was no cut."""
        dropped = self.dropped()
        self._nft(f"table netdev {_TABLE} {{}}\ndelete table netdev {_TABLE}")
        return dropped

    def dropped(self) -> dict[str, int]:
        """Packets the present cut has dropped, by port."""
        try:
            text = self._nft("", "-j", "list", "table", "netdev", _TABLE)
        except LabError:
            return {}
        rules = [entry["rule"] for entry in json.loads(text)["nftables"] if "rule" in entry]
        return {
            str(rule["chain"]): int(part["counter"]["packets"])
            for rule in rules
            for part in rule["expr"]
            if "counter" in part
        }

    def _nft(self, script: str, *options: str) -> str:
        """Run nftables inside the switch with a script, or with ``options`` alone; its output."""
        arguments = [*options, "-f", "-"] if script else list(options)
        with namespaces.entered(self.namespace):
            try:
                done = subprocess.run(
                    ["nft", *arguments], input=script, capture_output=True, text=True, check=False
                )
            except FileNotFoundError:
                raise LabError("nft was not found", hint="install the package nftables") from None
        if done.returncode != 0:
            raise LabError(f"nftables refused the lab's rules: {' '.join(done.stderr.split())}")
        return done.stdout


def index_of(ip: Any, name: str) -> int:
    """The interface index of ``name`` in the namespace of ``ip``; LabError if there is none."""
    found = ip.link_lookup(ifname=name)
    if not found:
        raise LabError(f"there is no interface {name!r} in the namespace")
    return int(found[0])
