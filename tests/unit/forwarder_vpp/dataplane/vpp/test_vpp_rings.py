"""Sizes of rings: whole pages, nothing of what the kernel rounds up to is wasted, a packet fits into a frame."""

from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.objects.af_packet import AfPacket, AfPackets, Ring, ring_of_packets
from forwarder_vpp.dataplane.vpp.profile import rings
from forwarder_vpp.desired.vpp import DEFAULT_RING, EXPEDITED_RING, UPLINK_RING
from nsm.model.errors import Code, NsmError

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


def test_the_profiles_give_the_sizes_that_were_measured() -> None:
    sizes = {"workload": DEFAULT_RING, "expedited": EXPEDITED_RING, "uplink": UPLINK_RING}
    assert rings("lab") == {name: (ring.frame, ring.frames) for name, ring in sizes.items()}
    assert rings("af_packet") == rings("lab")


def test_a_profile_of_ones_own_may_give_some_or_none(tmp_path: Path) -> None:
    profile = tmp_path / "own.conf"
    profile.write_text("unix { }\n")
    assert rings(str(profile)) == {}
    profile.write_text("# rings: workload 2048x64\n")
    assert rings(str(profile)) == {"workload": (2048, 64)}


@pytest.mark.parametrize(
    "text", ["workload 2048", "peer 2048x64", "workload 2000x64", "workload 2048x3", "workload 2048x0", ""]
)
def test_a_size_the_kernel_would_refuse_is_refused_by_name(tmp_path: Path, text: str) -> None:
    profile = tmp_path / "own.conf"
    profile.write_text(f"# rings: {text}\n")
    with pytest.raises(NsmError, match="expected workload or expedited or uplink") as caught:
        rings(str(profile))
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, "profile")
