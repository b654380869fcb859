"""What to make of the answers to several messages sent together."""

from collections.abc import Collection, Sequence
from typing import Any

from forwarder_vpp.dataplane.contract.vpp import Call, Vpp
from forwarder_vpp.dataplane.vpp.errors import GONE, VppError
from nsm.model.errors import NsmError


async def together(vpp: Vpp, requests: Sequence[Call[Any]], *, ignore: Collection[str] = ()) -> list[Any]:
    """Send all in one turn; the first refusal that is not among ``ignore`` is raised, after all answers."""
    outcomes = await vpp.calls(requests)
    for outcome in outcomes:
        if isinstance(outcome, VppError) and outcome.name in ignore:
            continue
        if isinstance(outcome, NsmError):
            raise outcome
    return outcomes


async def remove(vpp: Vpp, *requests: Call[Any], gone: Collection[str] = GONE) -> None:
    """Send what removes something; what is gone already is no failure."""
    await together(vpp, requests, ignore=gone)
