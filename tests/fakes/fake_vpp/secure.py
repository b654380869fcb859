"""WireGuard and access lists in the model."""

from typing import Any

from forwarder_vpp.dataplane.vpp.messages import acl
from forwarder_vpp.dataplane.vpp.messages import wireguard as wg
from forwarder_vpp.dataplane.vpp.messages.common import ANY, Done, MadeInterface
from forwarder_vpp.dataplane.vpp.messages.interface import ADMIN_UP

from .handlers import OK, Handler
from .model import Interface, Model, Refused


def public_key(private: bytes) -> bytes:
    """Not Curve25519, only as unique as the private key."""
    return bytes(byte ^ 0x5A for byte in private)


def wg_create(model: Model, request: wg.WireguardCreate) -> MadeInterface:
    number = len(model.of_kind("Wireguard Tunnel"))
    made = Interface(f"wg{number}", "Wireguard Tunnel", facts=request)
    return MadeInterface(retval=0, sw_if_index=model.add(made))


def wg_delete(model: Model, request: wg.WireguardDelete) -> Done:
    model.wireguard(request.sw_if_index)
    model.peers = {i: peer for i, peer in model.peers.items() if peer.sw_if_index != request.sw_if_index}
    model.remove(request.sw_if_index)
    return OK


def wg_list(model: Model, request: wg.WireguardDump) -> list[wg.WireguardDetails]:
    return [
        wg.WireguardDetails(
            user_instance=index,
            sw_if_index=index,
            private_key=facts.private_key if request.show_private_key else bytes(32),
            public_key=public_key(facts.private_key),
            port=facts.port,
            src_ip=facts.src_ip,
        )
        for index in model.of_kind("Wireguard Tunnel")
        if request.sw_if_index in (ANY, index)
        for facts in [model.wireguard(index)]
    ]


def peer_add(model: Model, request: wg.PeerAdd) -> wg.MadePeer:
    if not isinstance(model.interface(request.sw_if_index).facts, wg.WireguardCreate):
        raise Refused(-2)
    if any(peer.public_key == request.public_key for peer in model.peers.values()):
        raise Refused(-116)
    index = next(i for i in range(len(model.peers) + 1) if i not in model.peers)
    model.peers[index] = request
    return wg.MadePeer(retval=0, peer_index=index)


def peer_remove(model: Model, request: wg.PeerRemove) -> Done:
    if model.peers.pop(request.peer_index, None) is None:
        raise Refused(-6)
    return OK


def _peer_flags(model: Model, peer: wg.PeerAdd) -> int:
    found = model.interfaces[peer.sw_if_index]
    has_session = found.flags & ADMIN_UP and found.rises > model.handshakes_in_vain
    return wg.ESTABLISHED if has_session else 0


def peer_flags(model: Model) -> dict[int, int]:
    """Of every peer."""
    return {index: _peer_flags(model, peer) for index, peer in model.peers.items()}


def told_of(model: Model, request: wg.WantPeerEvents) -> set[int]:
    """The peers that are there and meant."""
    return {
        index
        for index, peer in model.peers.items()
        if request.peer_index in (ANY, index) and request.sw_if_index in (ANY, peer.sw_if_index)
    }


def peer_list(model: Model, request: wg.PeerDump) -> list[wg.PeerDetails]:
    return [
        wg.PeerDetails(
            peer_index=index,
            preshared_key=bytes(32),
            preshared_key_set=False,
            public_key=peer.public_key,
            port=peer.port,
            persistent_keepalive=peer.persistent_keepalive,
            table_id=peer.table_id,
            endpoint=peer.endpoint,
            sw_if_index=peer.sw_if_index,
            flags=_peer_flags(model, peer),
            allowed_ips=peer.allowed_ips,
        )
        for index, peer in model.peers.items()
        if request.peer_index in (ANY, index)
    ]


def peer_events(model: Model, request: wg.WantPeerEvents) -> Done:
    return OK


def acl_replace(model: Model, request: acl.AclReplace) -> acl.MadeAcl:
    index = request.acl_index
    if index == ANY:
        index = next(i for i in range(len(model.acls) + 1) if i not in model.acls)
    elif index not in model.acls:
        raise Refused(-6)
    model.acls[index] = (request.tag, request.rules)
    return acl.MadeAcl(acl_index=index, retval=0)


def acl_delete(model: Model, request: acl.AclDelete) -> Done:
    if request.acl_index not in model.acls:
        raise Refused(-6)
    if any(request.acl_index in found.acls[1] for found in model.interfaces.values()):
        raise Refused(-142)
    del model.acls[request.acl_index]
    return OK


def acl_list(model: Model, request: acl.AclDump) -> list[acl.AclDetails]:
    return [
        acl.AclDetails(acl_index=index, tag=tag, rules=rules)
        for index, (tag, rules) in model.acls.items()
        if request.acl_index in (ANY, index)
    ]


def acl_bind(model: Model, request: acl.InterfaceAcls) -> Done:
    found = model.interface(request.sw_if_index)
    if any(index not in model.acls for index in request.acls):
        raise Refused(-6)
    found.acls = (request.n_input, request.acls)
    return OK


def acl_bindings(model: Model, request: acl.InterfaceAclsDump) -> list[acl.InterfaceAclsDetails]:
    return [
        acl.InterfaceAclsDetails(sw_if_index=index, n_input=found.acls[0], acls=found.acls[1])
        for index, found in sorted(model.interfaces.items())
        if request.sw_if_index in (ANY, index)
    ]


HANDLERS: dict[type[Any], Handler] = {
    wg.WireguardCreate: wg_create,
    wg.WireguardDelete: wg_delete,
    wg.WireguardDump: wg_list,
    wg.PeerAdd: peer_add,
    wg.PeerRemove: peer_remove,
    wg.PeerDump: peer_list,
    wg.WantPeerEvents: peer_events,
    acl.AclReplace: acl_replace,
    acl.AclDelete: acl_delete,
    acl.AclDump: acl_list,
    acl.InterfaceAcls: acl_bind,
    acl.InterfaceAclsDump: acl_bindings,
}
