"""What the pool of ready pairs relies on: an interface changes hands in VPP by its tag, and stays known by its link."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.errors import VppError
from forwarder_vpp.dataplane.vpp.messages import af_packet
from forwarder_vpp.dataplane.vpp.messages.interface import InterfaceDump, InterfaceTag
from forwarder_vpp.dataplane.vpp.objects.af_packet import Ring, creation
from forwarder_vpp.dataplane.vpp.session import VppSession
from tests.contract.targets import vpp_binary
from tests.fakes.fake_vpp.server import FakeVpp
from tests.netns.vpp_node import inside, namespaces, vpp_in

NODE, WORKLOAD = "vpct-n1", "vpct-w1"
LINK = "nvp00000001"
MAC = "02:00:00:00:00:07"
RING = Ring(2048, 64)


@pytest.fixture(params=["fake", pytest.param("vpp", marks=pytest.mark.vpp)])
async def vpp(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VppSession]:
    """A session; for a real VPP there is a pair, whose near end is handed over while the test runs."""
    if request.param == "fake":
        fake = FakeVpp(str(tmp_path / "api.sock"))
        await fake.start()
        session = VppSession(fake.path)
        await session.start()
        yield session
        await session.close()
        await fake.kill()
        return
    binary = vpp_binary()
    with namespaces(NODE, WORKLOAD):
        inside(NODE, "ip", "link", "add", LINK, "type", "veth", "peer", "name", "near")
        inside(NODE, "ip", "link", "set", LINK, "up")
        async with vpp_in(NODE, tmp_path, binary) as (_, session):
            yield session


def hand_over() -> None:
    """The near end, where there is a kernel."""
    if Path(f"/run/netns/{NODE}").exists():
        inside(NODE, "ip", "link", "set", "near", "netns", WORKLOAD, "name", "nsm-1", "up")


async def test_an_interface_is_handed_over_by_its_tag_and_removed_by_its_link(vpp: VppSession) -> None:
    made = await vpp.call(creation(LINK, MAC, RING))
    index: int = made.sw_if_index
    await vpp.call(InterfaceTag(is_add=True, sw_if_index=index, tag="nsm1-pool-x/ready"))
    hand_over()
    await vpp.call(InterfaceTag(is_add=True, sw_if_index=index, tag="nsm1-owner/client"))
    [found] = await vpp.dump(InterfaceDump(sw_if_index=index))
    assert (found.tag, found.l2_address.hex(":")) == ("nsm1-owner/client", MAC)
    assert await vpp.dump(af_packet.AfPacketDump()) == [af_packet.AfPacketDetails(index, LINK)]
    await vpp.call(af_packet.AfPacketDelete(host_if_name=LINK))
    assert await vpp.dump(af_packet.AfPacketDump()) == []


async def test_a_second_interface_on_a_link_is_refused_and_the_first_one_stays(vpp: VppSession) -> None:
    """A pair that waits cannot be made twice by two agents."""
    made = await vpp.call(creation(LINK, MAC, RING))
    with pytest.raises(VppError) as refused:
        await vpp.call(creation(LINK, MAC, RING))
    assert refused.value.name == "IF_ALREADY_EXISTS"
    assert await vpp.dump(af_packet.AfPacketDump()) == [af_packet.AfPacketDetails(made.sw_if_index, LINK)]
