"""A refresh costs no write, and one that fails leaves the connection as it was."""

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nsm.model.connection import Connection
from nsm.model.errors import Code
from nsm.model.mechanism import INODE_URL
from nsmctl.lab.demonstration import cli_of, flows_of
from tests.fakes.caller import caller
from tests.fakes.write_counts import netlink_writes, tracing, vpp_trace
from tests.scenes import Scene, carried, links

PLACES = (("wireguard", "IP"), ("vxlan", "ETHERNET"))


@contextmanager
def counted(lab: Scene, directory: Path) -> Iterator[list[str]]:
    """Every write of both agents, to the kernel and to VPP; complete when the block has ended."""
    writes: list[str] = []
    traces = {node.name: directory / f"{node.name}.trace" for node in (lab.near, lab.far)}
    asked: list[list[str]] = []
    with ExitStack() as stack:
        for node in (lab.near, lab.far):
            stack.enter_context(tracing(lab.process(f"{node.name}/forwarder").pid, traces[node.name]))
            if lab.dataplane == "vpp":
                asked.append(stack.enter_context(vpp_trace(cli_of(node))))
        yield writes
    for name, trace in traces.items():
        assert re.search(r"send(to|msg)|write", trace.read_text()), "strace saw the agent at work"
        writes += [f"{name}: {each}" for each in netlink_writes(trace)]
    for each in asked:
        writes += [f"vpp: {name}" for name in each]


def test_three_refreshes_with_new_tokens_write_nothing(lab: Scene, tmp_path: Path) -> None:
    connections = {}
    for number, (place, payload) in enumerate(PLACES):
        pool = f"[172.16.{number}.0/24],[fd00:172:{number}::/112]"
        lab.endpoint(f"to-{place}", payload=payload, NSM_CIDR_PREFIX=pool)
        (connections[place],) = lab.client(
            f"by-{place}",
            f"to-{place}-service",
            NSM_MAX_TOKEN_LIFETIME="10s",
        )
    with counted(lab, tmp_path) as writes, ThreadPoolExecutor(len(PLACES)) as waiting:
        tokens = waiting.map(lambda place: lab.refreshed(f"by-{place[0]}-0", 3), PLACES)
        assert [len(each) for each in tokens] == [4] * len(PLACES)
    assert writes == []
    for place, connection in connections.items():
        carried(lab.probe(connection, f"by-{place}", f"to-{place}", rate=200, seconds=0.2))


def test_a_refresh_while_the_next_hop_is_away_loses_no_packet(lab: Scene) -> None:
    manager = f"{lab.far.name}/manager"
    lab.endpoint("server")
    (connection,) = lab.client("caller", "server-service", NSM_MAX_TOKEN_LIFETIME="20s")
    before = links(lab.netns("caller"))
    with lab.probes(flows_of(connection), "caller", "server") as running:
        since = lab.mark_log("caller")
        lab.kill(manager)
        lab.wait("caller", "request.failed", since=since)
        since = lab.mark_log("caller")
        lab.start(manager)
        lab.wait("caller", "connected", since=since)
        carried(running.finish())
    assert links(lab.netns("caller")) == before


@pytest.fixture
def server(lab: Scene) -> Scene:
    """A lab with an endpoint."""
    lab.endpoint("server")
    lab.workload("inside")
    return lab


async def test_a_refresh_with_parameters_nobody_can_have_leaves_the_old_ones(server: Scene) -> None:
    lab, space = server, server.netns("inside")
    async with caller("inside", lab.near.manager, lab.near.identities) as client:
        answer = await client.request(client.first("server-service"), client.kernel(space))
        with lab.probes(flows_of(facts(answer)), "inside", "server") as running:
            for asked, code, field in wrong(answer):
                error = await client.refused(asked, client.kernel(space))
                assert (error.code, error.message.partition(": ")[0]) == (code, field), error
            again = await client.request(ours(answer, client.kernel(space)))
            carried(await asyncio.to_thread(running.finish))
        assert again.context == answer.context
        assert set(links(space)) == {"nsm-1"}
        await client.close(again)


def wrong(answer: Connection) -> list[tuple[Connection, Code, str]]:
    """Refreshes that ask for what cannot be."""
    assert answer.context is not None
    assert answer.mechanism is not None
    ip = answer.ip
    conflict = replace(ip, src_ip_addrs=(*ip.src_ip_addrs, ip.dst_ip_addrs[0]))
    low = replace(answer.context, mtu=1000)
    other = answer.mechanism.having(name="an-interface-of-20b")
    return [
        (replace(answer, context=low), Code.INVALID_ARGUMENT, "connection.context.MTU"),
        (
            replace(answer, context=replace(answer.context, ip_context=conflict)),
            Code.INVALID_ARGUMENT,
            "connection.context.ip_context.src_ip_addrs",
        ),
        (replace(answer, mechanism=other), Code.INVALID_ARGUMENT, "connection.mechanism.parameters.name"),
    ]


def ours(answer: Connection, mechanism: Any) -> Connection:
    """The answer with our own namespace again (trap 19)."""
    assert answer.mechanism is not None
    return replace(answer, mechanism=answer.mechanism.having(**{INODE_URL: mechanism.get(INODE_URL)}))


def facts(answer: Connection) -> dict[str, Any]:
    """As a ``connected`` event has them."""
    return {"src_ip_addrs": answer.ip.src_ip_addrs, "dst_ip_addrs": answer.ip.dst_ip_addrs}
