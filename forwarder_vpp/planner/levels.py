"""Topological levels, as late as possible: whatever waits for the same thing goes in one batch."""

from collections.abc import Collection, Mapping

from forwarder_vpp.dataplane.contract.items import Key
from nsm.model.errors import Code, NsmError


def levels(keys: Collection[Key], requires: Mapping[Key, tuple[Key, ...]]) -> tuple[tuple[Key, ...], ...]:
    """``keys`` in batches, each after everything it requires; a key stands just before its first dependent.

    Requirements outside ``keys`` count as fulfilled. NsmError INTERNAL: keys require each other in a circle.
    """
    chosen = set(keys)
    heights: dict[Key, int] = {}
    needs = {key: [each for each in requires.get(key, ()) if each in chosen] for key in keys}
    missing = dict.fromkeys(keys, 0)
    for wanted in needs.values():
        for each in wanted:
            missing[each] += 1
    ready = [key for key in keys if not missing[key]]
    for key in ready:
        heights.setdefault(key, 0)
    while ready:
        key = ready.pop()
        for each in needs[key]:
            heights[each] = max(heights.get(each, 0), heights[key] + 1)
            missing[each] -= 1
            if not missing[each]:
                ready.append(each)
    stuck = [str(key) for key in keys if missing[key]]
    if stuck:
        raise NsmError(Code.INTERNAL, f"items require each other in a circle: {', '.join(sorted(stuck))}")
    count = max(heights.values(), default=-1) + 1
    batches: list[list[Key]] = [[] for _ in range(count)]
    for key in keys:
        batches[count - 1 - heights[key]].append(key)
    return tuple(tuple(batch) for batch in batches)
