"""Layer 3 cross-connects: what an interface receives goes to fixed paths, per family."""

from typing import ClassVar

from forwarder_vpp.dataplane.contract.vpp import Call, Dump
from forwarder_vpp.dataplane.vpp.codec import details, dump, request
from forwarder_vpp.dataplane.vpp.fields import Count, flag, u32

from .common import ANY, Done, MadeEntry
from .ip import paths


@request("l3xc_update", 0xE96AABDF)
class L3xcUpdate(Call[MadeEntry]):
    """Effective only where no entry exists, though it returns 0 on one that does (reference §3.2)."""

    sw_if_index: u32
    is_ip6: flag
    n_paths: ClassVar[Count] = Count("B")
    paths: paths


@request("l3xc_del", 0xE7DBEF91)
class L3xcDelete(Call[Done]):
    """Remove the entry of one family."""

    sw_if_index: u32
    is_ip6: flag


@details("l3xc_details", 0xBC5BF852)
class L3xcDetails:
    """One entry; it may be left over from a deleted interface of the same index."""

    sw_if_index: u32
    is_ip6: flag
    n_paths: ClassVar[Count] = Count("B")
    paths: paths


@dump("l3xc_dump", 0xF9E6675E)
class L3xcDump(Dump[L3xcDetails]):
    """The entries of one interface or all."""

    sw_if_index: u32 = ANY


MESSAGES = (L3xcUpdate, L3xcDelete, L3xcDump)
