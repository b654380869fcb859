"""Scenario 27: SVIDs live for 10 s and are renewed after 5, then the whole CA is replaced; no packet is missed.

Local, WireGuard and VXLAN connections carry 1,000 packets/s each way meanwhile. ``tests.fakes.wardrobe`` says from
outside who wears which SVID.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager

import pytest

from nsm.identity.authority import load_authority
from nsm.identity.tokens import PathTokens
from nsm.model.connection import MonitorScopeSelector
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Material, Svid
from nsm.transport.channel import Channel
from nsm.wire.methods import MONITOR_CONNECTIONS
from nsmctl.lab import identities
from tests.acceptance.test_restarts import WORLD, Tell, traffic
from tests.fakes.caller import caller
from tests.fakes.identity import FakeAuthority
from tests.fakes.wardrobe import Trust, Wardrobe, key_id, wardrobe
from tests.scenes import Scene, carried, settled

SVID_TTL = "10s"
RENEWALS = 24
"""Two minutes of SVIDs that are renewed every 5 s."""
PATIENCE_S = 300.0
RATES = {name: 1000 for name, _, _ in WORLD}
STEPS = {"prepare": (True, 2), "activate": (False, 2), "finish": (False, 1)}
"""Of replacing the CA: whether the old root signs after it, and how many roots are trusted."""

pytestmark = [pytest.mark.minutes, pytest.mark.timeout(600)]


@contextmanager
def short_lived(lab: Scene) -> Iterator[None]:
    """Every SVID is replaced after 5 s, while the block runs."""
    nodes = lab.world.topology.nodes
    try:
        for node in nodes:
            identities.set_svid_ttl(node, SVID_TTL)
        yield
    finally:
        for node in nodes:
            identities.set_svid_ttl(node, "1h")


@contextmanager
def rotating(lab: Scene, tell: Tell) -> Iterator[Wardrobe]:
    """Traffic over every kind of connection, and SVIDs that are renewed under it; 0 lost when the block has ended.

    The clients' first tokens live no longer than those SVIDs: the first refresh would come after two minutes.
    """
    workloads = {f"by-{name}": lab.near for name, _, _ in WORLD}
    workloads |= {f"to-{name}": lab.far if remote else lab.near for name, remote, _ in WORLD}
    with (
        traffic(lab, tell, RATES, NSM_MAX_TOKEN_LIFETIME=SVID_TTL),
        wardrobe(lab.world.topology, workloads) as seen,
        short_lived(lab),
    ):
        yield seen


def test_svids_renewed_every_five_seconds_lose_no_packet(lab: Scene, record_property: Tell) -> None:
    """Every daemon, client and endpoint wears two minutes of new SVIDs, one after the other."""
    with rotating(lab, record_property) as seen:
        seen.until_worn(RENEWALS, lambda _: True, seconds=PATIENCE_S)


def test_the_whole_ca_is_replaced_and_loses_no_packet(lab: Scene, record_property: Tell) -> None:
    """Each step is over when everybody wears an SVID from after it; after the last one the old CA's are refused."""
    old = load_authority(identities.authority(lab.near))
    thief = old.issue(f"spiffe://{identities.TRUST_DOMAIN}/client/thief", 3600, time.time())
    root = key_id(old.chain[-1])
    with rotating(lab, record_property) as seen:
        for step, state in STEPS.items():
            identities.replace_root(lab.world.topology, step)

            def is_after(trust: Trust, state: tuple[bool, int] = state) -> bool:
                return (trust.signer == root, len(trust.roots)) == state

            seen.until_worn(1, is_after, seconds=PATIENCE_S)
            for hop in ("manager", "forwarder"):
                seen.run(accepts(lab, hop, thief, is_welcome=step != "finish"))
        (connection,) = lab.client("newcomer", "to-wireguard-service")
        carried(lab.probe(connection, "newcomer", "to-wireguard"))


async def accepts(lab: Scene, hop: str, svid: Svid, *, is_welcome: bool) -> None:
    """A peer with this SVID, which trusts the lab, is answered by the near ``hop``, or refused with an audit record."""
    daemon = f"{lab.near.name}/{hop}"
    url = lab.near.manager if hop == "manager" else lab.near.forwarder
    since = lab.mark_log(daemon)
    async with dressed(lab, url, svid) as channel:
        events = channel.stream(MONITOR_CONNECTIONS, MonitorScopeSelector())
        async with aclosing(events):
            if is_welcome:
                await anext(events)
                return
            with pytest.raises(NsmError) as refused:
                await anext(events)
    assert refused.value.code is Code.UNAVAILABLE
    (record,) = await asyncio.to_thread(settled, lambda: lab.events(daemon, "audit", since=since), bool)
    assert record["refusal"]


@asynccontextmanager
async def dressed(lab: Scene, url: str, svid: Svid) -> AsyncIterator[Channel]:
    """A channel of somebody with this SVID and the trust of the lab as it is now."""
    async with caller(identities.OPERATOR, url, lab.near.identities) as honest:
        bundles = honest.node.identity.current.bundles
    who = FakeAuthority(identities.TRUST_DOMAIN).identity("client/thief")
    who.publish(Material(svid, bundles))
    channel = Channel(url, who, PathTokens(who, max_lifetime=60), dial_timeout=5.0)
    try:
        yield channel
    finally:
        await channel.close()
