"""The linux dataplane: which kernel objects realise a connection."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from forwarder_vpp.dataplane.contract.intent import Intent, KernelEnd, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Item
from forwarder_vpp.dataplane.linux.objects.vxlan_device import VxlanDevice
from forwarder_vpp.dataplane.linux.objects.wireguard_device import WireguardDevice
from forwarder_vpp.dataplane.netlink.link_config import LinkConfig, link_config
from forwarder_vpp.dataplane.netlink.tags import derived_mac
from forwarder_vpp.dataplane.netlink.veth import FAR, NEAR, Veth, VethEnd
from nsm.model.errors import Code, NsmError, invalid

_NAME_BYTES: Final = 15
_IPV6_MINIMUM: Final = 1280
_DEFAULT_MTU: Final = 9000


def items(intent: Intent) -> tuple[Item, ...]:
    """The items of one connection.

    NsmError: INVALID_ARGUMENT for an interface name or an MTU the kernel would refuse; UNIMPLEMENTED for a
    connection without a workload at this node, or a tunnel that needs two different ports.
    """
    match intent.client, intent.endpoint:
        case KernelEnd() as near, KernelEnd() as far:
            return _local(intent, near, far)
        case (KernelEnd() as end, (VxlanEnd() | WireguardEnd()) as tunnel) | (
            (VxlanEnd() | WireguardEnd()) as tunnel,
            KernelEnd() as end,
        ):
            return _remote(intent, end, tunnel)
        case _:
            text = "the linux dataplane forwards nothing through the node: one end must be a workload's interface"
            raise NsmError(Code.UNIMPLEMENTED, text, field="mechanism")


def _local(intent: Intent, near: KernelEnd, far: KernelEnd) -> tuple[Item, ...]:
    mtu = intent.mtu or _DEFAULT_MTU
    veth = Veth(intent.owner, _veth_end(intent, near, NEAR), _veth_end(intent, far, FAR), mtu)
    return veth, _config(intent, near, veth, mtu), _config(intent, far, veth, mtu)


def _remote(intent: Intent, end: KernelEnd, tunnel: VxlanEnd | WireguardEnd) -> tuple[Item, ...]:
    if intent.mtu == 0:
        raise invalid("connection.context.mtu", "the MTU of the tunnel", 0)
    device: Item
    if isinstance(tunnel, WireguardEnd):
        device = WireguardDevice(
            owner=intent.owner,
            netns=end.netns,
            name=end.interface,
            mtu=intent.mtu,
            local_port=tunnel.local_port,
            private_key=tunnel.private_key,
            remote=str(ip_address(tunnel.remote)),
            remote_port=tunnel.remote_port,
            remote_public_key=tunnel.remote_public_key,
        )
    else:
        device = _vxlan(intent, end, tunnel)
    config = _config(intent, end, device, intent.mtu)
    # Who makes a WireGuard device also sizes it: what the engine adds to a packet depends on it.
    return device, replace(config, mtu=0) if isinstance(tunnel, WireguardEnd) else config


def _vxlan(intent: Intent, end: KernelEnd, tunnel: VxlanEnd) -> VxlanDevice:
    if tunnel.local_port != tunnel.remote_port:
        expected = f"the same UDP port on both sides ({tunnel.local_port}: a kernel VXLAN device has one)"
        raise invalid("mechanism.parameters.dst_port", expected, tunnel.remote_port)
    return VxlanDevice(
        owner=intent.owner,
        netns=end.netns,
        name=end.interface,
        mac=end.mac or derived_mac(intent.owner, "tunnel"),
        mtu=intent.mtu,
        local=str(ip_address(tunnel.local)),
        remote=str(ip_address(tunnel.remote)),
        vni=tunnel.vni,
        port=tunnel.local_port,
    )


def _veth_end(intent: Intent, end: KernelEnd, role: str) -> VethEnd:
    return VethEnd(end.netns, end.interface, end.mac or derived_mac(intent.owner, role))


def _config(intent: Intent, end: KernelEnd, link: Item, mtu: int) -> LinkConfig:
    name = end.interface
    is_name = 0 < len(name.encode()) <= _NAME_BYTES and name not in {".", ".."}
    if not is_name or any(each in "/:" or each.isspace() for each in name):
        expected = f"an interface name of 1 to {_NAME_BYTES} bytes without '/', ':' and blanks"
        raise invalid("mechanism.parameters.name", expected, name)
    if mtu < _IPV6_MINIMUM and any(":" in each for each in end.addresses):
        raise invalid("connection.context.mtu", f"at least {_IPV6_MINIMUM} with an IPv6 address", mtu)
    return link_config(intent.owner, end, link.key, mtu)
