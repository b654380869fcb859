"""The explicit list of the messages in use, and what a VPP that lacks one of them is told about."""

from collections.abc import Mapping, Sequence

from .codec import DETAILS, REQUEST, Spec, reply_spec, spec_of
from .messages import acl, af_packet, core, interface, ip, l2, l3xc, tap, vxlan, wireguard

MODULES = (core, interface, ip, l2, l3xc, af_packet, tap, vxlan, wireguard, acl)


def all_specs() -> tuple[Spec, ...]:
    """Every message that is sent or received, with the replies and details that belong to requests."""
    found: list[Spec] = []
    for module in MODULES:
        for cls in module.MESSAGES:
            spec = spec_of(cls)
            found.append(spec)
            if spec.kind == REQUEST:
                answer = spec_of(spec.answer)
                found.append(answer if answer.kind == DETAILS else reply_spec(spec))
    return tuple(found)


SPECS = all_specs()


def mismatches(known: Mapping[str, int], specs: Sequence[Spec] = SPECS) -> tuple[str, ...]:
    """What VPP's message table (``name_crc`` → number) lacks, one sentence part each."""
    others = {name.rpartition("_")[0]: name.rpartition("_")[2] for name in known}
    lacking = []
    for spec in specs:
        if spec.wire_name in known:
            continue
        theirs = others.get(spec.name)
        state = f"is 0x{theirs}" if theirs else "is absent (plugin not loaded?)"
        lacking.append(f"{spec.name}: expected 0x{spec.crc:08x}, {state}")
    return tuple(lacking)
