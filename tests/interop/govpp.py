"""The VPP under a Go forwarder: one of its own on each node, with the uplink the forwarder looks for (trap 66).

The Go forwarder can start VPP itself, but only at paths that all instances on one machine would share.
"""

import subprocess

from forwarder_vpp.dataplane.vpp.profile import find_vpp, preload, segment_prefix
from nsmctl.errors import LabError
from nsmctl.lab import namespaces
from nsmctl.lab.daemons import Daemon
from nsmctl.lab.processes import Process
from nsmctl.lab.ready import tail
from nsmctl.lab.topology import Node
from nsmctl.lab.underlay import UPLINK
from tests.scenes import settled

CONFIGURATION = """
unix {{
  nodaemon
  nosyslog
  runtime-dir {directory}
  cli-listen {directory}/cli.sock
  log {directory}/vpp.log
  exec {directory}/uplink.vpp
}}
socksvr {{ socket-name {directory}/api.sock }}
api-segment {{ prefix {prefix} }}
memory {{
  main-heap-size 512M
  main-heap-page-size default
}}
buffers {{
  buffers-per-numa 16384
  page-size default
}}
statseg {{
  socket-name {directory}/stats.sock
  size 32m
  page-size default
}}
plugins {{ plugin dpdk_plugin.so {{ disable }} }}
"""
UPLINK_COMMANDS = """
create host-interface name {link} hw-addr {mac}
set interface mtu packet {mtu} host-{link}
set interface ip address host-{link} {ip}/24
set interface state host-{link} up
"""


class VppDaemon(Daemon):
    """A VPP: ``program`` is its file."""

    @property
    def argv(self) -> tuple[str, ...]:
        """As given."""
        return (self.program, *self.arguments)


def daemon(node: Node) -> VppDaemon:
    """The node's VPP, its configuration written."""
    directory = node.vpp_directory
    directory.mkdir(parents=True, exist_ok=True)
    mac, mtu = _link(node)
    prefix = segment_prefix(directory)
    file = directory / "startup.conf"
    file.write_text(CONFIGURATION.format(directory=directory, prefix=prefix))
    commands = UPLINK_COMMANDS.format(link=UPLINK, mac=mac, mtu=mtu, ip=node.ip)
    (directory / "uplink.vpp").write_text(commands)
    library = preload()
    env = {"LD_PRELOAD": str(library)} if library else {}
    log = node.directory / "vpp.log"
    return VppDaemon(f"{node.name}/vpp", find_vpp(), node.netns, log, env, ("-c", str(file)))


def wait_uplink(process: Process, node: Node) -> None:
    """Until the uplink carries the node's address. LabError with the end of its log otherwise."""
    shown = settled(lambda: _uplink(node), lambda text: node.ip in text or not process.alive, seconds=60.0)
    if node.ip not in shown:
        raise LabError(f"{process.name} has no uplink:\n{tail(process)}")


def _uplink(node: Node) -> str:
    socket = node.vpp_directory / "cli.sock"
    asked = ["vppctl", "-s", str(socket), "show", "interface", "address"]
    return subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60).stdout


def _link(node: Node) -> tuple[str, int]:
    """Hardware address and MTU of the node's uplink."""
    with namespaces.netlink(node.netns) as ip:
        (link,) = ip.link("get", ifname=UPLINK)
        return str(link.get_attr("IFLA_ADDRESS")), int(link.get_attr("IFLA_MTU"))
