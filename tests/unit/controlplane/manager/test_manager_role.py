"""Which forwarder a manager chooses, and that a refresh asks nobody."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controlplane.manager.labels import NodeLabels
from controlplane.manager.local import LocalEndpoints
from controlplane.manager.mirror import Mirror
from controlplane.manager.prefixes import ExcludedPrefixes
from controlplane.manager.role import ManagerRole
from nsm.model.connection import Connection, State
from nsm.model.endpoint import Match, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import Mechanism
from nsm.model.path import Path, PathSegment
from nsm.service.hop import Closing, Incoming
from nsm.service.late_closes import LateCloses
from nsm.service.next_hop import NextHop
from nsm.session.matching import service_matches

SERVICES = (NetworkService("s", "IP"), NetworkService("p2p-only", "IP", (Match({}),)))


class FakeNextHop:
    """Records which URL got what; ``refuses`` maps a URL to its error."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Connection]] = []
        self.closes: list[str] = []
        self.away: set[str] = set()
        self.news = asyncio.Event()
        self.forgotten: list[str] = []
        self.refuses: dict[str, NsmError] = {}

    async def request(
        self, url: str, connection: Connection, preferences: Sequence[Mechanism], *, deadline: float
    ) -> Connection:
        assert deadline == 15.0
        assert preferences == (Mechanism("LOCAL", "KERNEL"),)
        self.requests.append((url, connection))
        if url in self.refuses:
            raise self.refuses[url]
        name = url.removeprefix("tcp://").removesuffix(":1")
        path = Path(1, (*connection.route.segments[:2], PathSegment(name, f"id-{name}")))
        return replace(connection, network_service_endpoint_name="nse", path=path)

    async def close(self, url: str, connection: Connection, *, deadline: float) -> None:
        assert deadline == 15.0
        await self.leave(url, connection, deadline=deadline)

    async def leave(self, url: str, connection: Connection, *, deadline: float) -> None:
        if url in self.away:
            raise NsmError(Code.UNAVAILABLE, f"{url} is away")
        self.closes.append(f"{url} {connection.id}")
        self.news.set()

    def forget(self, connection_id: str) -> None:
        self.forgotten.append(connection_id)

    @property
    def urls(self) -> list[str]:
        return [url for url, _ in self.requests]


class FakeMirror:
    def __init__(self) -> None:
        self.asked = 0

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        self.asked += 1
        return [service for service in SERVICES if service_matches(query, service)]


class World:
    def __init__(self) -> None:
        self.next_hop = FakeNextHop()
        self.mirror = FakeMirror()
        self.local = LocalEndpoints("tcp://10.0.0.1:5001", self._dropped)
        prefixes = ExcludedPrefixes(FilePath("/nowhere/file"))
        prefixes._prefixes = ("10.0.0.0/8",)
        self.late = LateCloses(self.next_hop.leave, self.local.arrivals)
        self.role = ManagerRole(
            cast("NextHop", self.next_hop),
            cast("Mirror", self.mirror),
            self.local,
            NodeLabels.of(node="n1", pod="", cluster=""),
            prefixes,
            late=self.late,
        )

    async def _dropped(self, url: str) -> None:
        assert url

    async def forwarders(self, *names: str, labels: dict[str, str] | None = None) -> None:
        for name in names:
            entry = {"forwarder": labels or {"p2p": "true"}}
            await self.local.put(
                NetworkServiceEndpoint(
                    name=name,
                    network_service_names=("forwarder",),
                    network_service_labels=entry,
                    url=f"tcp://{name}:1",
                ),
                None,
            )

    async def request(self, connection: Connection) -> Connection:
        incoming = SimpleNamespace(
            connection=connection, preferences=(Mechanism("LOCAL", "KERNEL"),), deadline=15.0
        )
        return await self.role.request(cast("Incoming", incoming))

    async def close(self, connection: Connection) -> None:
        closing = SimpleNamespace(connection=connection, deadline=15.0)
        await self.role.close(cast("Closing", closing))


def connection(*after: str, service: str = "s", own: str = "m-1", **changes: Any) -> Connection:
    segments = (
        PathSegment("nsc", "c-1", "t", time.time_ns() + 600 * 10**9),
        PathSegment("nsmgr", own),
        *(PathSegment(n, f"id-{n}") for n in after),
    )
    made = Connection(id=own, network_service=service, path=Path(1, segments))
    return replace(made, **changes)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.late.stop()


async def test_labels_and_prefixes_are_added_before_the_forwarder_is_asked(world: World) -> None:
    await world.forwarders("f1")
    answer = await world.request(connection(labels={"app": "x"}))
    assert answer.labels == {"app": "x", "nodeName": "n1"}
    assert answer.ip.excluded_prefixes == ("10.0.0.0/8",)
    assert answer.network_service_endpoint_name == "nse"


async def test_a_connection_stays_with_its_forwarder_without_asking_anybody(world: World) -> None:
    await world.forwarders("f1", "f2")
    world.next_hop.refuses["tcp://f1:1"] = NsmError(Code.UNAVAILABLE, "down")
    await world.request(connection())
    assert world.next_hop.urls == ["tcp://f1:1", "tcp://f2:1"]
    world.next_hop.refuses.clear()
    world.next_hop.requests.clear()
    asked = world.mirror.asked
    await world.request(connection("f2"))
    assert world.next_hop.urls == ["tcp://f2:1"]
    assert world.mirror.asked == asked
    await world.request(connection(own="m-2"))  # another connection chooses anew
    assert world.next_hop.urls[-1] == "tcp://f1:1"


async def test_a_failing_refresh_tries_no_other_forwarder(world: World) -> None:
    await world.forwarders("f1", "f2")
    await world.request(connection())
    world.next_hop.refuses["tcp://f1:1"] = NsmError(Code.UNAVAILABLE, "down")
    with pytest.raises(NsmError, match="down"):
        await world.request(connection())
    assert world.next_hop.urls == ["tcp://f1:1", "tcp://f1:1"]


async def test_the_forwarder_named_in_the_path_is_preferred(world: World) -> None:
    await world.forwarders("f1", "f2", "f3")
    world.next_hop.refuses["tcp://f2:1"] = NsmError(Code.UNAVAILABLE, "down")
    await world.request(connection("f2", "nse"))
    assert world.next_hop.urls == ["tcp://f2:1", "tcp://f1:1"]


async def test_reselect_ignores_both(world: World) -> None:
    await world.forwarders("f1", "f2")
    world.next_hop.refuses["tcp://f1:1"] = NsmError(Code.UNAVAILABLE, "down")
    await world.request(connection())
    world.next_hop.refuses.clear()
    world.next_hop.requests.clear()
    await world.request(connection("f2", state=State.RESELECT_REQUESTED))
    assert world.next_hop.urls == ["tcp://f1:1"]


async def test_errors_of_several_forwarders_are_all_told(world: World) -> None:
    await world.forwarders("f1", "f2")
    world.next_hop.refuses["tcp://f1:1"] = NsmError(Code.UNAVAILABLE, "down")
    world.next_hop.refuses["tcp://f2:1"] = NsmError(Code.INVALID_ARGUMENT, "no such payload")
    with pytest.raises(NsmError, match=r"f1: UNAVAILABLE: down; f2: .*no such payload") as caught:
        await world.request(connection())
    assert caught.value.code is Code.INVALID_ARGUMENT


async def test_the_only_forwarders_error_is_passed_on(world: World) -> None:
    await world.forwarders("f1")
    refusal = NsmError(Code.RESOURCE_EXHAUSTED, "no port", field="mechanism")
    world.next_hop.refuses["tcp://f1:1"] = refusal
    with pytest.raises(NsmError) as caught:
        await world.request(connection())
    assert caught.value is refusal


@pytest.mark.parametrize(
    ("service", "changes", "text"),
    [
        ("x", {}, "'x' is not registered"),
        ("s", {"payload": "ETHERNET"}, "payload ETHERNET is not registered"),
        ("p2p-only", {}, "none of 1 has the labels"),
    ],
)
async def test_what_cannot_be_carried_is_named(
    world: World, service: str, changes: dict[str, Any], text: str
) -> None:
    await world.forwarders("f1", labels={"sriov": "true"})
    with pytest.raises(NsmError, match=text) as caught:
        await world.request(connection(service=service, **changes))
    assert (caught.value.code, caught.value.field) == (Code.NOT_FOUND, "connection.network_service")
    assert world.next_hop.requests == []


async def test_without_a_forwarder_the_reason_is_given(world: World) -> None:
    with pytest.raises(NsmError, match="none is registered"):
        await world.request(connection())


async def test_a_forwarder_that_is_gone_fails_the_refresh_but_not_the_close(world: World) -> None:
    await world.forwarders("f1")
    await world.request(connection())
    await world.local.remove("f1")
    with pytest.raises(NsmError, match="'f1' is not registered") as caught:
        await world.request(connection())
    assert caught.value.code is Code.UNAVAILABLE
    await world.close(connection())
    assert world.next_hop.forgotten == ["m-1"]


async def test_a_close_reaches_a_forwarder_that_was_away_when_it_registers_again(world: World) -> None:
    await world.forwarders("f1")
    await world.request(connection())
    world.next_hop.away.add("tcp://f1:1")
    await world.close(connection("f1"))
    assert world.next_hop.closes == []
    world.next_hop.away.clear()
    await world.forwarders("f1")
    async with asyncio.timeout(10):
        await world.next_hop.news.wait()
    assert world.next_hop.closes == ["tcp://f1:1 m-1"]


async def test_a_close_reaches_a_forwarder_this_manager_has_not_seen_yet(world: World) -> None:
    await world.close(connection("f1"))
    await world.forwarders("f2")
    await world.forwarders("f1")
    async with asyncio.timeout(10):
        await world.next_hop.news.wait()
    assert world.next_hop.closes == ["tcp://f1:1 m-1"]


async def test_a_request_takes_a_late_close_back(world: World) -> None:
    await world.forwarders("f1", "f2")
    await world.request(connection("f1"))
    world.next_hop.away.add("tcp://f1:1")
    await world.close(connection("f1"))
    await world.request(connection("f1"))
    assert len(world.late) == 0


async def test_a_request_that_goes_elsewhere_leaves_a_late_close_where_it_was(world: World) -> None:
    await world.forwarders("f1", "f2")
    await world.request(connection("f1"))
    world.next_hop.away.add("tcp://f1:1")
    await world.close(connection("f1"))
    world.next_hop.refuses["tcp://f1:1"] = NsmError(Code.UNAVAILABLE, "down")
    await world.request(connection("f1", state=State.RESELECT_REQUESTED))
    world.next_hop.away.clear()
    await world.forwarders("f1")
    async with asyncio.timeout(10):
        await world.next_hop.news.wait()
    assert world.next_hop.closes == ["tcp://f1:1 m-1"]


async def test_close_goes_to_the_chosen_forwarder_or_the_one_in_the_path(world: World) -> None:
    await world.forwarders("f1", "f2")
    await world.request(connection())
    await world.close(connection("f2"))
    await world.close(connection("f2", own="m-9"))
    assert world.next_hop.closes == ["tcp://f1:1 m-1", "tcp://f2:1 m-9"]
