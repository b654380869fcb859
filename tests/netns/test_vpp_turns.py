"""What a new connection costs in messages and round trips to a real VPP, counted by strace: those of docs/adr/0007."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import End, Intent, KernelEnd, VxlanEnd
from forwarder_vpp.dataplane.vpp.dataplane import VppDataplane, VppOptions
from forwarder_vpp.desired.vpp import NodeFacts, connection_items
from forwarder_vpp.reconciler.reconciler import Reconciler
from nsm.model.mechanism import ETHERNET, IP
from nsmctl.lab.namespaces import entered
from perf.control.counts import counted
from tests.contract.targets import vpp_binary
from tests.netns.test_vpp_packets import IPV4, intent, uplink, wireguard_pair, workload
from tests.netns.vpp_node import inside, namespaces, node, ping, run

pytestmark = [
    pytest.mark.vpp,
    pytest.mark.netns,
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace"),
]

NEAR_PORT, FAR_PORT, OTHER_PORT, NOWHERE = 61911, 61912, 61913, 61914
WORKLOADS = {workload(2, 1, IP).netns: "vpt-w2"}
PATIENCE = 30.0


@dataclass
class Agent:
    """A dataplane and its reconciler in this process, which is in the node's namespace."""

    dataplane: VppDataplane
    reconciler: Reconciler

    def here(self, payload: str, number: int) -> KernelEnd:
        """The workload of that number, beside this node."""
        found = workload(number, 2, payload)
        return replace(found, netns=self.dataplane.namespaces.learn(f"/run/netns/vpt-w{number}"))

    async def cost(self, name: str, payload: str, client: End, endpoint: End) -> tuple[int, int]:
        """Messages and round trips of a new connection, without those of handshakes that came to nothing."""
        wanted = Intent(name, f"nsm1-{name}", payload, 1400, client, endpoint)
        by_name = self.dataplane.session.counters.by_name
        before = by_name["sw_interface_set_flags"]
        with counted(os.getpid()) as counts:
            await self.reconciler.realise(wanted, asyncio.get_running_loop().time() + PATIENCE)
        anew = (by_name["sw_interface_set_flags"] - before - 2) // 2  # two interfaces rise once each
        return counts.vpp_messages - 5 * anew, counts.vpp_round_trips - 2 * anew

    async def end(self, name: str) -> None:
        """The connection and all that it was made of."""
        self.reconciler.remove(name)
        await self.reconciler.drain()


@asynccontextmanager
async def agent(folder: Path, address: str) -> AsyncIterator[Agent]:
    """It ends with its VPP."""
    options = VppOptions(ends_vpp=True)
    dataplane = VppDataplane(address, folder, options, instance="vpt")
    await dataplane.start()
    reconciler = Reconciler(dataplane, quarantine=600)
    try:
        await reconciler.start([])
        yield Agent(dataplane, reconciler)
    finally:
        await reconciler.stop()
        await dataplane.close()


async def test_a_connection_takes_two_round_trips_and_a_local_one_three(tmp_path: Path) -> None:
    """The far side of the WireGuard tunnel knows a wrong port, so it can but answer: no two handshakes meet."""
    binary = vpp_binary()
    near_end, far_end = wireguard_pair(NEAR_PORT, FAR_PORT)
    answering, _ = wireguard_pair(OTHER_PORT, NOWHERE)
    far = connection_items(intent(replace(far_end, remote_port=NOWHERE), workload(2, 1, IP), IP), NodeFacts())
    with namespaces("vpt-n1", "vpt-n2", "vpt-w1", "vpt-w2", "vpt-w3"):
        wire = ("ip", "link", "add", "eth0", "netns", "vpt-n1", "type", "veth")
        run(*wire, "peer", "name", "eth0", "netns", "vpt-n2")
        for number in (1, 2):
            inside(f"vpt-n{number}", "ip", "addr", "add", f"{IPV4.address(number)}/24", "dev", "eth0")
            inside(f"vpt-n{number}", "ip", "link", "set", "eth0", "up")
        async with node("vpt-n2", tmp_path / "n2", binary, WORKLOADS) as second:
            await second.executor.create(uplink(2, IPV4, neighbour=1))
            await second.executor.create(far)
            with entered(Path("/run/netns/vpt-n1")):
                async with agent(tmp_path / "n1", IPV4.address(1)) as first:
                    here, vxlan = first.here, VxlanEnd(IPV4.address(1), IPV4.address(2), 7)
                    assert await first.cost("client", IP, here(IP, 1), near_end) == (21, 2)
                    assert await asyncio.to_thread(ping, "vpt-w1", "10.9.0.2") == 5
                    await first.end("client")
                    assert await first.cost("endpoint", IP, answering, here(IP, 1)) == (21, 2)
                    await first.end("endpoint")
                    assert await first.cost("client", ETHERNET, here(ETHERNET, 1), vxlan) == (11, 2)
                    await first.end("client")
                    assert await first.cost("endpoint", ETHERNET, vxlan, here(ETHERNET, 1)) == (11, 2)
                    await first.end("endpoint")
                    assert await first.cost("local", IP, here(IP, 1), here(IP, 3)) == (20, 3)
