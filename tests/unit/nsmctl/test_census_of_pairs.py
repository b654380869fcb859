"""A census without what a forwarder keeps ready: whole pairs only."""

from nsmctl.lab.census import Census

ALIAS = "nsm1 abcd nsm1-pool-01234567-67584x62f3-{0} ready-{1} 0 0 0"


def node(*names: str) -> Census:
    """Links of the pool, and what VPP and the kernel have on the far ones."""
    ends = {"nwp": "near", "nvp": "far"}
    links = {f"{name} veth mtu 1500 {ALIAS.format(name[3:], ends[name[:3]])}" for name in names}
    far = {name for name in names if name.startswith("nvp")}
    return Census(
        {
            "link n1": frozenset(links | {"eth0 veth mtu 1500"}),
            "address n1": frozenset(f"{name} " for name in names),
            "packet n1": frozenset({f"{name} 1" for name in far} | {"eth0 1"}),
            "vpp cli": frozenset({f"show interface: host-{name} 4 up 9000/0/0/0" for name in far}),
        }
    )


def test_whole_pairs_come_and_go_unseen() -> None:
    full = node("nwp00000001", "nvp00000001", "nwp00000002", "nvp00000002")
    assert node().difference(full)
    assert node().without_ready_pairs().difference(full.without_ready_pairs()) == ()


def test_half_a_pair_is_left_behind() -> None:
    for end in ("nvp00000002", "nwp00000002"):
        found = node("nwp00000001", "nvp00000001", end).without_ready_pairs()
        left = node().without_ready_pairs().difference(found)
        assert any(line.startswith(f"+ link n1: {end} ") for line in left)
        assert not any("00000001" in line for line in left)


def test_an_interface_in_vpp_without_its_pair_is_left_behind() -> None:
    alone = Census({"vpp cli": frozenset({"show interface: host-nvp00000001 4 up 9000/0/0/0"})})
    assert alone.without_ready_pairs() == alone
