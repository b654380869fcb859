"""What each message does to the model, with the return values VPP 26.06 gives."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from forwarder_vpp.dataplane.vpp.codec import spec_of
from forwarder_vpp.dataplane.vpp.messages import af_packet, core, interface, ip, l2, l3xc, tap, vxlan
from forwarder_vpp.dataplane.vpp.messages.common import ANY, Done, MadeEntry, MadeInterface

from .model import CrossConnect, Interface, Model, Refused

OK = Done(retval=0)
ENTRY = MadeEntry(retval=0, stats_index=0)


def _selected(model: Model, kind: str, index: int) -> dict[int, Interface]:
    found = model.of_kind(kind)
    return found if index == ANY else {i: each for i, each in found.items() if i == index}


# core


def ping(model: Model, request: core.ControlPing) -> core.ControlPingReply:
    return core.ControlPingReply(retval=0, client_index=0, vpe_pid=1)


def version(model: Model, request: core.ShowVersion) -> core.ShowVersionReply:
    return core.ShowVersionReply(
        retval=0, program="vpe", version="26.06-fake", build_date="", build_directory=""
    )


def cli(model: Model, request: core.Cli) -> core.CliReply:
    return core.CliReply(retval=0, reply=f"unknown input `{request.cmd}'")


# interfaces


def interfaces(model: Model, request: interface.InterfaceDump) -> list[interface.InterfaceDetails]:
    layout = spec_of(interface.InterfaceDetails).layout
    zero: interface.InterfaceDetails = layout.unpack(bytes(layout.size))
    return [
        replace(
            zero,
            sw_if_index=index,
            sup_sw_if_index=index,
            l2_address=found.mac,
            flags=found.flags,
            mtu=found.mtu,
            link_mtu=9000 if any(found.mac) else 0,
            interface_name=found.name,
            interface_dev_type=found.kind,
            tag=found.tag,
        )
        for index, found in sorted(model.interfaces.items())
        if request.sw_if_index in (ANY, index)
    ]


def tag(model: Model, request: interface.InterfaceTag) -> Done:
    model.interface(request.sw_if_index).tag = request.tag if request.is_add else ""
    return OK


def flags(model: Model, request: interface.InterfaceFlags) -> Done:
    found = model.interface(request.sw_if_index)
    found.rises += bool(request.flags & ~found.flags & interface.ADMIN_UP)
    found.flags = interface.ADMIN_UP | interface.LINK_UP if request.flags & interface.ADMIN_UP else 0
    return OK


def mtu(model: Model, request: interface.InterfaceMtu) -> Done:
    model.interface(request.sw_if_index).mtu = request.mtu
    return OK


def rx_mode(model: Model, request: interface.DefaultRxMode) -> Done:
    return OK


def address(model: Model, request: interface.InterfaceAddress) -> Done:
    found = model.interface(request.sw_if_index)
    if request.is_add:
        taken = [each.network for i in model.interfaces.values() for each in i.addresses]
        if request.prefix.network in taken:
            raise Refused(-105)
        found.addresses.append(request.prefix)
    elif request.prefix in found.addresses:
        found.addresses.remove(request.prefix)
    else:
        raise Refused(-60)
    return OK


def mac(model: Model, request: interface.InterfaceMac) -> interface.MacReply:
    return interface.MacReply(retval=0, mac_address=model.interface(request.sw_if_index).mac)


def want_events(model: Model, request: interface.WantInterfaceEvents) -> Done:
    return OK


def gso(model: Model, request: interface.InterfaceGso) -> Done:
    model.interface(request.sw_if_index).gso = request.enable_disable
    return OK


# IP


def ip4(model: Model, request: ip.Ip4Enable) -> Done:
    model.interface(request.sw_if_index).ip4 = request.enable
    return OK


def ip6(model: Model, request: ip.Ip6Enable) -> Done:
    found = model.interface(request.sw_if_index)
    if request.enable and found.ip6:
        raise Refused(-81)
    found.ip6 = request.enable
    return OK


def addresses(model: Model, request: ip.AddressDump) -> list[ip.AddressDetails]:
    found = model.interfaces.get(request.sw_if_index)
    wanted = 6 if request.is_ipv6 else 4
    return [
        ip.AddressDetails(sw_if_index=request.sw_if_index, prefix=each)
        for each in (found.addresses if found else ())
        if each.version == wanted
    ]


def neighbour(model: Model, request: ip.Neighbour) -> MadeEntry:
    model.interface(request.sw_if_index)
    key = (request.sw_if_index, request.ip_address)
    if request.is_add:
        model.neighbours[key] = (request.flags, request.mac_address)
    elif model.neighbours.pop(key, None) is None:
        raise Refused(-6)
    return ENTRY


def neighbours(model: Model, request: ip.NeighbourDump) -> list[ip.NeighbourDetails]:
    return [
        ip.NeighbourDetails(age=0.0, sw_if_index=index, flags=flag, mac_address=hw, ip_address=address)
        for (index, address), (flag, hw) in model.neighbours.items()
        if request.sw_if_index in (ANY, index) and address.version == (6 if request.af else 4)
    ]


def route(model: Model, request: ip.Route) -> MadeEntry:
    if request.is_add:
        if not request.paths:
            raise Refused(-52)
        model.routes[request.prefix] = request.paths
    else:
        model.routes.pop(request.prefix, None)
    return ENTRY


def routes(model: Model, request: ip.RouteDump) -> list[ip.RouteDetails]:
    wanted = 6 if request.is_ip6 else 4
    return [
        ip.RouteDetails(table_id=0, stats_index=0, prefix=prefix, src=8, paths=paths)
        for prefix, paths in model.routes.items()
        if prefix.version == wanted
    ]


# cross-connects


def l2_set(model: Model, request: l2.L2Xconnect) -> Done:
    model.interface(request.rx_sw_if_index)
    model.interface(request.tx_sw_if_index)
    if request.enable:
        model.l2[request.rx_sw_if_index] = request.tx_sw_if_index
    else:
        model.l2.pop(request.rx_sw_if_index, None)
    return OK


def l2_list(model: Model, request: l2.L2XconnectDump) -> list[l2.L2XconnectDetails]:
    return [l2.L2XconnectDetails(rx_sw_if_index=rx, tx_sw_if_index=tx) for rx, tx in model.l2.items()]


def l3_update(model: Model, request: l3xc.L3xcUpdate) -> MadeEntry:
    model.interface(request.sw_if_index)
    if not request.paths:
        raise Refused(-7)
    key = (request.sw_if_index, request.is_ip6)
    old = model.l3.get(key)
    model.l3[key] = CrossConnect(request.paths, old.active if old else request.paths)
    return ENTRY


def l3_delete(model: Model, request: l3xc.L3xcDelete) -> Done:
    model.interface(request.sw_if_index)
    if model.l3.pop((request.sw_if_index, request.is_ip6), None) is None:
        raise Refused(-7)
    return OK


def l3_list(model: Model, request: l3xc.L3xcDump) -> list[l3xc.L3xcDetails]:
    return [
        l3xc.L3xcDetails(
            sw_if_index=index, is_ip6=False, paths=tuple(replace(path, rpf_id=0) for path in entry.listed)
        )
        for (index, _), entry in model.l3.items()
        if request.sw_if_index in (ANY, index)
    ]


# kinds of interface


def af_create(model: Model, request: af_packet.AfPacketCreate) -> MadeInterface:
    name = request.host_if_name
    if any(each.facts.host_if_name == name for each in _af(model).values()):
        raise Refused(-79)
    if model.links is not None and name not in model.links:
        raise Refused(-71)
    made = Interface(f"host-{name}", "af-packet", flags=interface.LINK_UP, facts=request)
    index = model.add(made)
    if not request.use_random_hw_addr:
        made.mac = request.hw_addr
    return MadeInterface(retval=0, sw_if_index=index)


def _af(model: Model) -> dict[int, Any]:
    return model.of_kind("af-packet")


def af_delete(model: Model, request: af_packet.AfPacketDelete) -> Done:
    for index, found in _af(model).items():
        if found.facts.host_if_name == request.host_if_name:
            model.remove(index)
            return OK
    raise Refused(-11)


def af_list(model: Model, request: af_packet.AfPacketDump) -> list[af_packet.AfPacketDetails]:
    return [
        af_packet.AfPacketDetails(sw_if_index=index, host_if_name=found.facts.host_if_name)
        for index, found in _af(model).items()
    ]


def tap_create(model: Model, request: tap.TapCreate) -> MadeInterface:
    if not model.has_vhost:
        raise Refused(-11)
    number = len(model.of_kind("virtio"))
    made = Interface(f"tap{number}", "virtio", tag=request.tag, flags=interface.LINK_UP, facts=request)
    return MadeInterface(retval=0, sw_if_index=model.add(made))


def tap_delete(model: Model, request: tap.TapDelete) -> Done:
    if model.interface(request.sw_if_index).kind != "virtio":
        raise Refused(-2)
    model.remove(request.sw_if_index)
    return OK


def tap_list(model: Model, request: tap.TapDump) -> list[tap.TapDetails]:
    found = []
    for index, each in _selected(model, "virtio", request.sw_if_index).items():
        facts = each.facts
        assert isinstance(facts, tap.TapCreate)
        found.append(
            tap.TapDetails(
                sw_if_index=index,
                id=index,
                tx_ring_sz=facts.tx_ring_sz,
                rx_ring_sz=facts.rx_ring_sz,
                host_mtu_size=facts.host_mtu_size,
                host_mac_addr=facts.host_mac_addr,
                host_ip4_prefix=facts.host_ip4_prefix,
                host_ip6_prefix=facts.host_ip6_prefix,
                tap_flags=facts.tap_flags,
                dev_name=each.name,
                host_if_name=facts.host_if_name,
                host_namespace=facts.host_namespace,
                host_bridge="",
            )
        )
    return found


def vxlan_set(model: Model, request: vxlan.VxlanTunnel) -> MadeInterface:
    if request.src_address == request.dst_address:
        raise Refused(-82)
    found = model.vxlan(request)
    if request.is_add:
        if found is not None:
            raise Refused(-75)
        number = len(model.of_kind("VXLAN"))
        up = interface.ADMIN_UP | interface.LINK_UP
        return MadeInterface(
            retval=0,
            sw_if_index=model.add(Interface(f"vxlan_tunnel{number}", "VXLAN", flags=up, facts=request)),
        )
    if found is None:
        raise Refused(-6)
    model.remove(found)
    return MadeInterface(retval=0, sw_if_index=found)


def vxlan_list(model: Model, request: vxlan.VxlanDump) -> list[vxlan.VxlanDetails]:
    found = []
    for index, each in _selected(model, "VXLAN", request.sw_if_index).items():
        facts = each.facts
        assert isinstance(facts, vxlan.VxlanTunnel)
        found.append(
            vxlan.VxlanDetails(
                sw_if_index=index,
                instance=index,
                src_address=facts.src_address,
                dst_address=facts.dst_address,
                src_port=facts.src_port,
                dst_port=facts.dst_port,
                mcast_sw_if_index=ANY,
                encap_vrf_id=0,
                decap_next_index=1,
                vni=facts.vni,
            )
        )
    return found


Handler = Callable[[Model, Any], Any]

HANDLERS: dict[type[Any], Handler] = {
    core.ControlPing: ping,
    core.ShowVersion: version,
    core.Cli: cli,
    interface.InterfaceDump: interfaces,
    interface.InterfaceTag: tag,
    interface.InterfaceFlags: flags,
    interface.InterfaceMtu: mtu,
    interface.DefaultRxMode: rx_mode,
    interface.InterfaceAddress: address,
    interface.InterfaceMac: mac,
    interface.WantInterfaceEvents: want_events,
    interface.InterfaceGso: gso,
    ip.Ip4Enable: ip4,
    ip.Ip6Enable: ip6,
    ip.AddressDump: addresses,
    ip.Neighbour: neighbour,
    ip.NeighbourDump: neighbours,
    ip.Route: route,
    ip.RouteDump: routes,
    l2.L2Xconnect: l2_set,
    l2.L2XconnectDump: l2_list,
    l3xc.L3xcUpdate: l3_update,
    l3xc.L3xcDelete: l3_delete,
    l3xc.L3xcDump: l3_list,
    af_packet.AfPacketCreate: af_create,
    af_packet.AfPacketDelete: af_delete,
    af_packet.AfPacketDump: af_list,
    tap.TapCreate: tap_create,
    tap.TapDelete: tap_delete,
    tap.TapDump: tap_list,
    vxlan.VxlanTunnel: vxlan_set,
    vxlan.VxlanDump: vxlan_list,
}


def perform(model: Model, request: object, handlers: Sequence[dict[type[Any], Handler]]) -> Any:
    """The reply or the list of entries. Refused: the return value."""
    for table in handlers:
        handler = table.get(type(request))
        if handler is not None:
            return handler(model, request)
    raise Refused(-9)
