"""From an intent to the items of the linux dataplane."""

from dataclasses import replace
from pathlib import Path

import pytest

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.linux import uapi
from forwarder_vpp.dataplane.linux.dataplane import LinuxDataplane
from forwarder_vpp.desired import linux as desired
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import Mechanism

NEAR = KernelEnd(NetnsId(4, 10, 100), "nsm-1", ("10.0.0.1/32", "fd00::1/128"))
FAR = KernelEnd(NetnsId(4, 11, 101), "nse-1", ("10.0.0.2/32",))
VXLAN = VxlanEnd("192.0.2.1", "192.0.2.2", 7)
WIREGUARD = WireguardEnd("192.0.2.1", "192.0.2.2", 52000, 52001, "cHJpdmF0ZQ==", "cHVibGlj")
LOCAL = Intent("id", "owner", "IP", 1500, NEAR, FAR)


@pytest.mark.parametrize(
    ("client", "endpoint", "kinds"),
    [
        (NEAR, FAR, ["veth", "link_config", "link_config"]),
        (NEAR, VXLAN, ["vxlan_device", "link_config"]),
        (VXLAN, FAR, ["vxlan_device", "link_config"]),
        (NEAR, WIREGUARD, ["wireguard_device", "link_config"]),
        (WIREGUARD, FAR, ["wireguard_device", "link_config"]),
    ],
)
def test_items_of_each_pair_of_ends(client: KernelEnd, endpoint: KernelEnd, kinds: list[str]) -> None:
    items = desired.items(replace(LOCAL, client=client, endpoint=endpoint))
    assert [item.key.kind for item in items] == kinds
    assert all(item.requires == (items[0].key,) for item in items[1:])
    assert items == desired.items(replace(LOCAL, client=client, endpoint=endpoint))
    assert len({item.key for item in items}) == len(items)


def test_a_private_key_is_never_shown() -> None:
    assert "cHJpdmF0ZQ==" not in repr(desired.items(replace(LOCAL, endpoint=WIREGUARD)))


@pytest.mark.parametrize(
    ("intent", "code", "field"),
    [
        (replace(LOCAL, client=VXLAN, endpoint=WIREGUARD), Code.UNIMPLEMENTED, "mechanism"),
        (
            replace(LOCAL, endpoint=replace(VXLAN, remote_port=4790)),
            Code.INVALID_ARGUMENT,
            "mechanism.parameters.dst_port",
        ),
        (replace(LOCAL, mtu=1279), Code.INVALID_ARGUMENT, "connection.context.mtu"),
        (replace(LOCAL, endpoint=VXLAN, mtu=0), Code.INVALID_ARGUMENT, "connection.context.mtu"),
        *(
            (
                replace(LOCAL, client=replace(NEAR, interface=name)),
                Code.INVALID_ARGUMENT,
                "mechanism.parameters.name",
            )
            for name in ("", "sixteen-bytes-xx", "a/b", "a b", "..", "ä" * 8)
        ),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_with_its_field(
    intent: Intent, code: Code, field: str
) -> None:
    with pytest.raises(NsmError) as refused:
        desired.items(intent)
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize(
    ("cls", "kind", "payload"),
    [
        ("REMOTE", "VXLAN", "IP"),
        ("REMOTE", "IPSEC", "IP"),
        ("LOCAL", "MEMIF", "IP"),
        ("LOCAL", "KERNEL", "X"),
    ],
)
async def test_mechanisms_it_cannot_realise_are_refused_with_the_reason(
    cls: str, kind: str, payload: str, tmp_path: Path
) -> None:
    plane = LinuxDataplane("192.0.2.1", tmp_path, instance="x")
    refusal = plane.refusal(Mechanism(cls, kind), payload)
    assert refusal is not None
    assert refusal.field == "mechanism.type"
    assert f"{cls}/{kind}" in refusal.message
    assert plane.refusal(Mechanism("LOCAL", "KERNEL"), "ETHERNET") is None


def test_keys_go_over_in_hex() -> None:
    text = uapi.hex_key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    assert text == bytes(range(32)).hex()
    assert uapi.base64_key(text) == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    with pytest.raises(ValueError, match="32 bytes"):
        uapi.hex_key("AAEC")
