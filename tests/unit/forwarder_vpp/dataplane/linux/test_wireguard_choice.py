"""Which WireGuard is used, and what is said where there is none."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from forwarder_vpp.dataplane.contract.intent import NetnsId
from forwarder_vpp.dataplane.contract.items import Key
from forwarder_vpp.dataplane.linux import wireguard_go
from forwarder_vpp.dataplane.linux.objects.wireguard_device import (
    Handle,
    Tunnel,
    WireguardDescriptor,
    WireguardDevice,
    passing_name,
)
from forwarder_vpp.dataplane.linux.wireguard_user import UserspaceWireguard
from forwarder_vpp.dataplane.netlink.access import Netlink
from nsm.model.errors import Code, NsmError

ITEM = WireguardDevice("o", NetnsId(1, 2, 3), "nsm-1", 1440, 52001, "a", "192.0.2.2", 52002, "b")


class FakeEngine:
    def __init__(self, reason: str = "", tunnels: Sequence[Tunnel] = ()) -> None:
        self.reason = reason
        self.tunnels = list(tunnels)
        self.done: list[str] = []

    async def start(self) -> None:
        self.done.append("start")

    def refusal(self) -> str:
        return self.reason

    def holds(self, item: WireguardDevice) -> bool:
        return any(each.name == passing_name(item.owner) for each in self.tunnels)

    def device_mtu(self, mtu: int) -> int:
        return mtu - 4

    async def create(self, item: WireguardDevice) -> Tunnel:
        self.tunnels.append(Tunnel(passing_name(item.owner), None, item))
        return self.tunnels[-1]

    async def configure(self, old: WireguardDevice, new: WireguardDevice) -> None:
        self.done.append(f"configure {new.remote}")

    async def resize(self, item: WireguardDevice) -> None:
        self.done.append(f"resize {item.mtu}")

    async def remove(self, tunnel: Tunnel) -> None:
        self.tunnels.remove(tunnel)

    async def has_handshake(self, item: WireguardDevice) -> bool:
        return True

    async def dump(self) -> Sequence[Tunnel]:
        return tuple(self.tunnels)


class Handles:
    def handle(self, key: Key) -> object:
        raise KeyError(key)


async def test_the_first_that_can_makes_the_tunnel() -> None:
    kernel, user = FakeEngine(), FakeEngine()
    handle = await WireguardDescriptor([kernel, user]).create(ITEM, Handles())
    assert (handle.engine, len(kernel.tunnels), len(user.tunnels)) == (kernel, 1, 0)
    kernel = FakeEngine("no module")
    handle = await WireguardDescriptor([kernel, user]).create(ITEM, Handles())
    assert handle.engine is user


async def test_those_up_to_the_first_that_can_are_started() -> None:
    engines = [FakeEngine("no module"), FakeEngine(), FakeEngine()]
    await WireguardDescriptor(engines).start()
    assert [each.done for each in engines] == [["start"], ["start"], []]


async def test_where_none_can_each_says_why() -> None:
    descriptor = WireguardDescriptor([FakeEngine("no module"), FakeEngine("no program")])
    with pytest.raises(NsmError) as refused:
        await descriptor.create(ITEM, Handles())
    assert refused.value.code is Code.FAILED_PRECONDITION
    assert refused.value.message == descriptor.refusal() == "no module; no program"
    assert not WireguardDescriptor([FakeEngine("no module"), FakeEngine()]).refusal()


async def test_what_another_one_made_before_stays_with_that_one() -> None:
    before = Tunnel(passing_name("o"), None, ITEM)
    kernel, user = FakeEngine(), FakeEngine(tunnels=[before])
    descriptor = WireguardDescriptor([kernel, user])
    (found,) = await descriptor.dump({})
    assert (found.item, found.handle) == (ITEM, Handle(user, before))
    assert await descriptor.has_handshake(ITEM)
    await descriptor.delete(ITEM, found.handle, Handles())
    assert user.tunnels == []
    with pytest.raises(NsmError) as gone:
        await descriptor.has_handshake(ITEM)
    assert gone.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("missing", ["program", "device", "right"])
def test_what_wireguard_go_lacks_is_said_with_the_remedy(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tun = tmp_path / "tun"
    if missing != "device":
        tun.touch(mode=0o600)
    monkeypatch.setattr(os, "access", lambda *_: missing != "right")  # root may open anything
    binary = None if missing == "program" else "/usr/bin/wireguard-go"
    remedy = {"program": "apt-get install wireguard-go", "device": "modprobe tun", "right": "chmod 0666"}
    assert remedy[missing] in wireguard_go.refusal(binary, tun)


def test_a_device_that_may_be_opened_is_enough(tmp_path: Path) -> None:
    tun = tmp_path / "tun"
    tun.touch(mode=0o600)
    assert not wireguard_go.refusal("/usr/bin/wireguard-go", tun)


@pytest.mark.parametrize("mtu", [*range(1280, 1460), 2839, 2840, 8920, 8940, 9000])
def test_what_wireguard_go_pads_stays_within_the_mtu(mtu: int, tmp_path: Path) -> None:
    daemons = wireguard_go.WireguardGo(tmp_path, "test")
    engine = UserspaceWireguard(cast("Netlink", None), daemons)
    device = engine.device_mtu(mtu)
    assert mtu - 15 <= device <= mtu
    assert max(padded(length) for length in range(1, device + 1)) <= mtu
    daemons.close()


def padded(length: int, mtu: int = 1420) -> int:
    """The length after calculatePaddingSize (golang.zx2c4.com/wireguard/device/send.go), the MTU taken for ``mtu``."""
    last = length % mtu if length > mtu else length
    return length + min((last + 15) // 16 * 16, mtu) - last


async def test_a_device_with_the_mtu_for_what_is_wanted_is_as_wanted() -> None:
    engine = FakeEngine(tunnels=[Tunnel(passing_name("o"), None, replace(ITEM, mtu=1436))])
    descriptor = WireguardDescriptor([engine])
    (found,) = await descriptor.dump({ITEM.key: ITEM})
    assert found.item == ITEM
    (found,) = await descriptor.dump({ITEM.key: replace(ITEM, mtu=1400)})
    assert found.item == replace(ITEM, mtu=1436)
