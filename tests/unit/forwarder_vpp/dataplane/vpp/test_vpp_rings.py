"""Sizes of rings: whole pages, nothing of what the kernel rounds up to is wasted, a packet fits into a frame."""

import pytest

from forwarder_vpp.dataplane.vpp.objects.af_packet import AfPacket, AfPackets, Ring, ring_of_packets
from forwarder_vpp.desired.vpp import DEFAULT_RING, EXPEDITED_RING, UPLINK_RING

LINK = AfPacket("link", "02:00:00:00:00:01")


def taken(ring: Ring) -> int:
    """Bytes the kernel takes for one of the two rings."""
    return 1 << (ring.frame * ring.frames - 1).bit_length()


@pytest.mark.parametrize(
    "ring", [DEFAULT_RING, EXPEDITED_RING, UPLINK_RING, *map(ring_of_packets, (1400, 1500, 3900, 9000))]
)
def test_it_is_whole_pages_and_one_frame_more_would_double_it(ring: Ring) -> None:
    assert ring.frame * ring.frames % 4096 == 0
    assert taken(ring) - ring.frame * ring.frames <= 2 * ring.frame


@pytest.mark.parametrize(("mtu", "frame"), [(1280, 2048), (1500, 2048), (1921, 4096), (9000, 10240)])
def test_a_frame_holds_a_packet_of_the_mtu(mtu: int, frame: int) -> None:
    assert ring_of_packets(mtu).frame == frame


def test_larger_frames_need_another_interface_and_smaller_ones_do_not() -> None:
    small, large = (AfPacket("link", LINK.mac, ring_of_packets(mtu)) for mtu in (1400, 9000))
    descriptor = AfPackets(None)  # type: ignore[arg-type]  # nothing is sent
    assert descriptor.updatable(large, small)
    assert not descriptor.updatable(small, large)
