"""Access lists (plugin acl)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import StructCoder, details, dump, reply, request
from forwarder_vpp.dataplane.vpp.fields import (
    Count,
    LastArray,
    i32,
    ipnet,
    last_u32,
    text64,
    u8,
    u16,
    u32,
)

from .common import ANY, Done

DENY = 0
PERMIT = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; ports are inclusive ranges, ICMP type and code in their place."""

    is_permit: u8
    src_prefix: ipnet
    dst_prefix: ipnet
    proto: u8 = 0
    srcport_or_icmptype_first: u16 = 0
    srcport_or_icmptype_last: u16 = 0xFFFF
    dstport_or_icmpcode_first: u16 = 0
    dstport_or_icmpcode_last: u16 = 0xFFFF
    tcp_flags_mask: u8 = 0
    tcp_flags_value: u8 = 0


rules = Annotated[tuple[Rule, ...], LastArray(StructCoder(Rule))]


@reply(0xAC407B0C)
class MadeAcl:
    """The list that was made or replaced."""

    acl_index: u32
    retval: i32


@request("acl_add_replace", 0xEE5C2F18)
class AclReplace(Call[MadeAcl]):
    """``acl_index`` = ANY makes a new list."""

    acl_index: u32
    tag: text64
    count: ClassVar[Count] = Count("I")
    rules: rules


@request("acl_del", 0xEF34FEA4)
class AclDelete(Call[Done]):
    """Refused while an interface uses the list."""

    acl_index: u32


@details("acl_details", 0x95BABAE0)
class AclDetails:
    """One list."""

    acl_index: u32
    tag: text64
    count: ClassVar[Count] = Count("I")
    rules: rules


@dump("acl_dump", 0xEF34FEA4)
class AclDump(Dump[AclDetails]):
    """One list or all."""

    acl_index: u32 = ANY


@request("acl_interface_set_acl_list", 0x473982BD)
class InterfaceAcls(Call[Done]):
    """The first ``n_input`` lists filter input, the others output."""

    sw_if_index: u32
    count: ClassVar[Count] = Count("B")
    n_input: u8
    acls: last_u32


@details("acl_interface_list_details", 0xE695D256)
class InterfaceAclsDetails:
    """The lists of one interface."""

    sw_if_index: u32
    count: ClassVar[Count] = Count("B")
    n_input: u8
    acls: last_u32


@dump("acl_interface_list_dump", 0xF9E6675E)
class InterfaceAclsDump(Dump[InterfaceAclsDetails]):
    """The lists of one interface or all."""

    sw_if_index: u32 = ANY


MESSAGES = (AclReplace, AclDelete, AclDump, InterfaceAcls, InterfaceAclsDump)
