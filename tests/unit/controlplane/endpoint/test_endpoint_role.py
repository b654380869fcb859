"""What an endpoint answers, and that a Request that fails leaves nothing."""

import asyncio
import time
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from controlplane.endpoint import leases
from controlplane.endpoint.idle import Idle
from controlplane.endpoint.ipam import PointToPointIpam
from controlplane.endpoint.leases import LeaseFile
from controlplane.endpoint.policy_file import PolicyFile
from controlplane.endpoint.role import EndpointRole
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, DnsConfig, EthernetContext, IpContext
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path as NsmPath
from nsm.model.path import PathSegment
from nsm.service.hop import Closing, Incoming

GROUPS = [[ip_network("10.0.0.0/28")], [ip_network("fd00::/124")]]
NETNS = "file:///run/netns/blue"
OFFERED = (Mechanism(LOCAL, KERNEL),)


def connection(
    name: str, *, context: ConnectionContext | None = None, expires: float | None = None
) -> Connection:
    ends = round((time.time() + 600 if expires is None else expires) * 1e9)
    path = NsmPath(1, (PathSegment("forwarder", f"f-{name}", expires=ends), PathSegment("nse", name)))
    return Connection(id=name, network_service="icmp-responder", path=path, context=context)


def incoming(asked: Connection, stored: Connection | None = None) -> Incoming:
    return Incoming(asked, OFFERED, is_refresh=stored is not None, stored=stored, peer=None, deadline=0.0)


def closing(gone: Connection) -> Closing:
    return Closing(gone, arrived=None, reason="call", deadline=0.0)


def role(**more: object) -> tuple[EndpointRole, PointToPointIpam]:
    ipam = PointToPointIpam(GROUPS)
    return EndpointRole(ipam, netns=NETNS, payload="IP", **more), ipam  # type: ignore[arg-type]


async def test_the_answer_has_addresses_of_both_families_dns_policies_and_our_interface(
    tmp_path: Path,
) -> None:
    pbr = tmp_path / "pbr.yaml"
    pbr.write_text("- {from: 192.0.2.1/32, proto: 6, dstport: 80, routes: [{prefix: 0.0.0.0/0}]}\n")
    dns = DnsConfig(("10.0.0.0",), ("svc",))
    endpoint, _ = role(dns=[dns], policies=PolicyFile(pbr))
    asked = connection(
        "a",
        context=ConnectionContext(mtu=1400, ethernet_context=EthernetContext(src_mac="02:00:00:00:00:01")),
    )
    answer = await endpoint.request(incoming(asked))
    assert answer.ip.dst_ip_addrs == ("10.0.0.0/32", "fd00::/128")
    assert answer.ip.src_ip_addrs == ("10.0.0.1/32", "fd00::1/128", "192.0.2.1/32")
    assert [policy.dst_port for policy in answer.ip.policies] == ["80"]
    assert answer.ctx.dns_context is not None
    assert answer.ctx.dns_context.configs == (dns,)
    assert (answer.ctx.mtu, answer.ctx.ethernet_context) == (
        1400,
        EthernetContext(src_mac="02:00:00:00:00:01"),
    )
    assert answer.payload == "IP"
    assert answer.mechanism is not None
    assert answer.mechanism.get("inodeURL") == NETNS
    assert len(answer.mechanism.get("name")) == 15


async def test_a_refresh_of_the_answer_is_the_answer() -> None:
    endpoint, _ = role(dns=[DnsConfig(("10.0.0.0",))])
    answer = await endpoint.request(incoming(connection("a")))
    assert await endpoint.request(incoming(answer, stored=answer)) == answer


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payload": "MPLS"}, "connection.payload"),
        ({"mechanism": Mechanism("REMOTE", "VXLAN")}, "connection.mechanism"),
        ({"mechanism": Mechanism(LOCAL, KERNEL, {"name": "x" * 16})}, "mechanism.parameters.name"),
        ({"context": ConnectionContext(mtu=1279)}, "connection.context.MTU"),
        (
            {"context": ConnectionContext(ip_context=IpContext(excluded_prefixes=("10/8",)))},
            "connection.context.ip_context.excluded_prefixes",
        ),
    ],
)
async def test_what_is_refused_names_its_field_and_leaves_nothing(
    change: dict[str, object], field: str
) -> None:
    endpoint, ipam = role()
    with pytest.raises(NsmError) as caught:
        await endpoint.request(incoming(replace(connection("a"), **change)))  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.field) == (Code.INVALID_ARGUMENT, field)
    assert dict(ipam.leases) == {}


async def test_a_refused_refresh_keeps_the_lease() -> None:
    endpoint, ipam = role()
    answer = await endpoint.request(incoming(connection("a")))
    before = dict(ipam.leases)
    narrow = replace(answer, context=replace(answer.ctx, mtu=1000))
    with pytest.raises(NsmError):
        await endpoint.request(incoming(narrow, stored=answer))
    assert dict(ipam.leases) == before


async def test_a_lease_that_cannot_be_stored_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leases, "_replace", full)
    endpoint, ipam = role(leases=LeaseFile(tmp_path / "leases"))
    with pytest.raises(NsmError) as caught:
        await endpoint.request(incoming(connection("a")))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert dict(ipam.leases) == {}


async def test_an_exhausted_pool_says_so_and_a_close_makes_room() -> None:
    endpoint, _ = role()
    answers = [await endpoint.request(incoming(connection(str(number)))) for number in range(8)]
    with pytest.raises(NsmError) as caught:
        await endpoint.request(incoming(connection("late")))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    await endpoint.close(closing(answers[3]))
    late = await endpoint.request(incoming(connection("late")))
    assert late.ip.dst_ip_addrs == answers[3].ip.dst_ip_addrs


async def test_leases_of_before_a_restart_are_held_until_their_connections_end(tmp_path: Path) -> None:
    file = tmp_path / "leases"
    endpoint, _ = role(leases=LeaseFile(file))
    kept = await endpoint.request(incoming(connection("kept")))
    await endpoint.request(incoming(connection("dead", expires=time.time() - 1)))
    endpoint.stop()
    again, ipam = role(leases=LeaseFile(file))
    ((adopted, remaining),) = again.adopt()
    assert kept.mechanism is not None
    assert adopted == replace(kept, mechanism=kept.mechanism.without(INODE_URL))
    assert 0 < remaining <= 600
    stranger = await again.request(incoming(connection("stranger")))
    assert stranger.ip.dst_ip_addrs == ("10.0.0.2/32", "fd00::2/128")
    assert (await again.request(incoming(kept))).context == kept.context
    again.stop()
    third, ipam = role(leases=LeaseFile(file))
    for each, _ in third.adopt():
        await third.close(replace(closing(each), reason="expired"))
    assert dict(ipam.leases) == {}
    await third.request(incoming(connection("new")))
    assert set(LeaseFile(file).load()) == {"new"}
    third.stop()


async def test_what_was_taken_over_keeps_an_endpoint_from_being_idle(tmp_path: Path) -> None:
    file = tmp_path / "leases"
    endpoint, _ = role(leases=LeaseFile(file))
    await endpoint.request(incoming(connection("kept")))
    ended = asyncio.Event()
    idle = Idle(0.001, ended.set)
    again, _ = role(leases=LeaseFile(file), idle=idle)
    ((adopted, _),) = again.adopt()
    idle.start()
    await asyncio.sleep(0.01)
    assert not ended.is_set()
    await again.close(closing(adopted))
    await asyncio.wait_for(ended.wait(), 30)
    again.stop()


async def test_addresses_are_never_given_twice_over_500_cycles_with_a_crash_in_the_middle(
    tmp_path: Path,
) -> None:
    """Waves of Requests at once; the crash cuts one short: some leases on disk, none of them answered."""
    file = tmp_path / "leases"
    groups = [[ip_network("10.0.0.0/24")], [ip_network("fd00::/120")]]
    ipam, on_disk = PointToPointIpam(groups), LeaseFile(file)
    endpoint = EndpointRole(ipam, netns=NETNS, payload="IP", leases=on_disk)
    live: dict[str, Connection] = {}
    done = 0
    for wave in range(25):
        names = [f"{wave}-{number}" for number in range(20)]
        tasks = [asyncio.create_task(endpoint.request(incoming(connection(name)))) for name in names]
        if wave == 12:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        live |= {one.id: one for one in results if isinstance(one, Connection)}
        done += len(names)
        if wave == 12:
            async with on_disk._lock:  # a crash would have ended the thread that writes
                endpoint.stop()
            ipam = PointToPointIpam(groups)
            endpoint = EndpointRole(ipam, netns=NETNS, payload="IP", leases=LeaseFile(file))
            assert len(endpoint.adopt()) >= len(live)
        refreshed = {name: await endpoint.request(incoming(one)) for name, one in live.items()}
        assert {name: one.context for name, one in refreshed.items()} == {
            name: one.context for name, one in live.items()
        }
        held = [text for one in live.values() for text in (*one.ip.src_ip_addrs, *one.ip.dst_ip_addrs)]
        assert len(held) == len(set(held)) == 4 * len(live)
        for name in list(live)[::2] + list(live)[1::4]:
            await endpoint.close(closing(live.pop(name)))
    assert done == 500
    endpoint.stop()
