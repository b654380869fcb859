"""The forwarder's role over a fake dataplane and a next hop in memory."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from forwarder_vpp.dataplane.contract.intent import KernelEnd, NetnsId, VxlanEnd, WireguardEnd
from forwarder_vpp.dataplane.contract.items import Key
from forwarder_vpp.mechanisms.refused import REASONS
from forwarder_vpp.reconciler.reconciler import Reconciler
from forwarder_vpp.request.owner import owner_of
from forwarder_vpp.request.role import ForwarderRole
from forwarder_vpp.store.base import MemoryStore
from nsm.identity.wireguard_keys import new_key_pair
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, EthernetContext, IpContext, IpNeighbor, PolicyRoute, Route
from nsm.model.endpoint import EndpointResponse, NetworkService, NetworkServiceEndpoint
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import (
    ETHERNET,
    INODE_URL,
    INTERFACE_NAME,
    IP,
    IPSEC,
    KERNEL,
    LOCAL,
    MTU,
    REMOTE,
    SRC_IP,
    VNI,
    VXLAN,
    WIREGUARD,
    Mechanism,
)
from nsm.model.path import Path, PathSegment
from nsm.service.discovery import Discovery
from nsm.service.hop import Closing, Incoming
from tests.fakes.fake_dataplane import FakeDataplane

UPLINK = {Key("port", "uplink")}
CLIENT_NS = "file:///proc/self/fd/10"
ENDPOINT_NS = "file:///proc/self/fd/20"
LOCAL_URL = "unix:///nse.sock"
REMOTE_URL = "tcp://10.0.0.2:5001"


@dataclass
class Registry:
    payload: str = IP
    urls: list[str] = field(default_factory=lambda: [LOCAL_URL])
    is_away: bool = False
    asked: int = 0
    registered: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def find_services(self, query: NetworkService) -> list[NetworkService]:
        self._answer()
        return [NetworkService(name=query.name, payload=self.payload)] if query.name == "ns" else []

    async def find_endpoints(self, query: NetworkServiceEndpoint) -> list[NetworkServiceEndpoint]:
        self._answer()
        found = [
            NetworkServiceEndpoint(name=f"nse-{number}", network_service_names=("ns",), url=url)
            for number, url in enumerate(self.urls)
        ]
        return [each for each in found if query.name in {"", each.name}]

    async def watch_endpoints(self, query: NetworkServiceEndpoint) -> AsyncGenerator[EndpointResponse, None]:
        """What ``find_endpoints`` gives, then what is put into ``registered``."""
        for endpoint in await self.find_endpoints(query):
            yield EndpointResponse(endpoint)
        while True:
            yield EndpointResponse(NetworkServiceEndpoint(name=query.name, url=await self.registered.get()))

    def _answer(self) -> None:
        self.asked += 1
        if self.is_away:
            raise NsmError(Code.UNAVAILABLE, "registry away")


class Behind:
    """The next hop: an endpoint on this node, or a forwarder of ours (or a Go one) on another."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Connection, tuple[Mechanism, ...]]] = []
        self.closed: list[tuple[str, Connection]] = []
        self.failing: set[str] = set()
        self.is_go = False
        self.change: Callable[[Connection], Connection] = lambda each: each
        self.on_close: Callable[[], None] = lambda: None
        self.keys = new_key_pair()
        self.news = asyncio.Event()

    async def request(
        self, url: str, connection: Connection, preferences: Sequence[Mechanism], *, deadline: float
    ) -> Connection:
        self.asked.append((url, connection, tuple(preferences)))
        if url in self.failing:
            raise NsmError(Code.UNAVAILABLE, f"{url} is away")
        offered = connection.mechanism or preferences[0]
        ip = (
            IpContext(("172.16.0.1/32",), ("172.16.0.0/32",))
            if not connection.ip.src_ip_addrs
            else connection.ip
        )
        context = replace(connection.ctx, ip_context=ip)
        route = connection.route
        segments = (*route.segments[: route.index + 1], PathSegment("nse", "n-1"))
        path = replace(route, segments=segments)
        return self.change(replace(connection, path=path, mechanism=self._agree(offered), context=context))

    def _agree(self, offered: Mechanism) -> Mechanism:
        if offered.type == KERNEL:
            return offered.having(**{INODE_URL: ENDPOINT_NS, INTERFACE_NAME: "nse-1"})
        answer = offered.having(dst_ip="10.0.0.2", dst_port="4789" if offered.type == VXLAN else "51820")
        if offered.type == VXLAN:
            return answer.having(**{VNI: "6"})
        answer = answer.having(dst_public_key=self.keys[1])
        return answer if self.is_go else answer.having(dst_own_port="51999")

    async def close(self, url: str, connection: Connection, *, deadline: float) -> None:
        await self.leave(url, connection, deadline=deadline)

    async def leave(self, url: str, connection: Connection, *, deadline: float) -> None:
        if url in self.failing:
            raise NsmError(Code.UNAVAILABLE, f"{url} is away")
        self.on_close()
        self.closed.append((url, connection))
        self.news.set()

    def forget(self, connection_id: str) -> None:
        return None


class Bench:
    def __init__(self, plane: FakeDataplane | None = None, store: MemoryStore | None = None) -> None:
        self.plane = plane or FakeDataplane()
        self.plane.namespaces.known |= {
            CLIENT_NS.removeprefix("file://"): NetnsId(4, 10, 10),
            ENDPOINT_NS.removeprefix("file://"): NetnsId(4, 20, 20),
        }
        self.store = store or MemoryStore()
        self.registry = Registry()
        self.behind = Behind()
        self.now = time.time()
        self.reconciler = Reconciler(self.plane, quarantine=600, on_removed=self.removed)
        self.role = ForwarderRole(
            self.plane,
            self.reconciler,
            self.store,
            Discovery(self.registry),
            self.behind,
            instance="fwd",
            new_keys=new_key_pair,
            clock=lambda: self.now,
        )

    def removed(self, connection_id: str) -> None:
        self.role.removed(connection_id)

    async def stop(self) -> None:
        await self.role.stop()
        await self.reconciler.stop()

    def census(self) -> set[Key]:
        return set(self.plane.objects)

    async def nothing_is_left(self) -> None:
        await self.reconciler.drain()
        assert self.census() == UPLINK
        assert not self.store.rows
        assert not self.role._claims._owner

    async def request(
        self,
        connection: Connection | None = None,
        preferences: tuple[Mechanism, ...] | None = None,
        seconds: float = 5.0,
    ) -> Connection:
        asked = connection or first()
        deadline = asyncio.get_running_loop().time() + seconds
        prefer = (kernel(),) if preferences is None else preferences
        return await self.role.request(Incoming(asked, prefer, False, None, None, deadline))

    async def close(self, connection: Connection) -> None:
        deadline = asyncio.get_running_loop().time() + 5
        await self.role.close(Closing(connection, connection, "call", deadline))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.role.adopt()
    yield made
    await made.stop()


def kernel(name: str = "nsm-1", url: str = CLIENT_NS) -> Mechanism:
    return Mechanism(LOCAL, KERNEL, {INODE_URL: url, INTERFACE_NAME: name})


def first(connection_id: str = "c-1", **facts: object) -> Connection:
    expires = round((time.time() + 600) * 1e9)
    path = Path(1, (PathSegment("client", "c-0", "t", expires), PathSegment("fwd", connection_id)))
    return replace(Connection(id=connection_id, network_service="ns", path=path), **facts)  # type: ignore[arg-type]


def vxlan(**changes: str) -> Mechanism:
    return Mechanism(REMOTE, VXLAN, {SRC_IP: "10.0.0.9", "src_port": "4789", MTU: "1446", **changes})


def wireguard(**changes: str) -> Mechanism:
    key = new_key_pair()[1]
    facts = {SRC_IP: "10.0.0.9", "src_port": "51820", "src_public_key": key, MTU: "1440", **changes}
    return Mechanism(REMOTE, WIREGUARD, facts)


# -- what is agreed ----------------------------------------------------------------------------------


async def test_a_local_connection_has_an_interface_at_each_end(bench: Bench) -> None:
    answer = await bench.request()
    intent = bench.reconciler.intent("c-1")
    assert intent is not None
    assert intent.owner == owner_of("fwd", "c-1")
    assert (intent.payload, intent.mtu) == (IP, 9000)
    assert intent.client == KernelEnd(
        NetnsId(4, 10, 10), "nsm-1", ("172.16.0.1/32",), (Route("172.16.0.0/32"),)
    )
    assert intent.endpoint == KernelEnd(
        NetnsId(4, 20, 20), "nse-1", ("172.16.0.0/32",), (Route("172.16.0.1/32"),)
    )
    assert answer.mechanism == kernel()
    assert (answer.payload, answer.network_service_endpoint_name) == (IP, "nse-0")
    assert answer.ctx.mtu == 9000
    _, asked, offers = bench.behind.asked[0]
    assert offers == (Mechanism(LOCAL, KERNEL),)
    assert asked.mechanism is None
    assert answer.route.segments[1].metrics["server_interface"] == "KERNEL/nsm-1"
    assert answer.route.segments[1].metrics["client_interface"] == "KERNEL/nse-1"


async def test_a_name_is_made_where_the_client_gives_none(bench: Bench) -> None:
    answer = await bench.request(preferences=(Mechanism(LOCAL, KERNEL, {INODE_URL: CLIENT_NS}),))
    assert answer.mechanism is not None
    assert answer.mechanism.get(INTERFACE_NAME).startswith("ns-")


async def test_towards_another_node_ethernet_goes_by_vxlan_and_lowers_the_mtu(bench: Bench) -> None:
    bench.registry.payload, bench.registry.urls = ETHERNET, [REMOTE_URL]
    answer = await bench.request()
    intent = bench.reconciler.intent("c-1")
    assert intent is not None
    assert intent.endpoint == VxlanEnd("10.0.0.1", "10.0.0.2", 6)
    assert answer.ctx.mtu == intent.mtu == 1446


@pytest.mark.parametrize("is_go", [False, True])
async def test_towards_another_node_ip_goes_by_wireguard(bench: Bench, is_go: bool) -> None:
    bench.registry.urls, bench.behind.is_go = [REMOTE_URL], is_go
    answer = await bench.request()
    intent = bench.reconciler.intent("c-1")
    assert intent is not None
    assert isinstance(intent.endpoint, WireguardEnd)
    assert intent.endpoint.shared is is_go
    assert (intent.endpoint.local_port == 51820) is is_go
    assert intent.endpoint.remote_public_key == bench.behind.keys[1]
    assert answer.ctx.mtu == 1440


async def test_answering_a_tunnel_fills_in_our_side_and_lowers_the_mtu_on_the_way_out(bench: Bench) -> None:
    bench.registry.payload = ETHERNET
    answer = await bench.request(preferences=(vxlan(),))
    assert answer.mechanism is not None
    vni = int(answer.mechanism.get(VNI))
    assert vni % 2 == 1  # 10.0.0.9 > 10.0.0.1
    intent = bench.reconciler.intent("c-1")
    assert intent is not None
    assert intent.client == VxlanEnd("10.0.0.1", "10.0.0.9", vni)
    assert bench.behind.asked[0][1].ctx.mtu == 1446


async def test_the_first_preference_we_can_do_is_taken(bench: Bench) -> None:
    answer = await bench.request(preferences=(Mechanism(LOCAL, "MEMIF"), vxlan(), kernel()))
    assert answer.mechanism == kernel()


@pytest.mark.parametrize("kind", REASONS)
async def test_what_we_do_not_carry_is_refused_with_the_reason(bench: Bench, kind: str) -> None:
    with pytest.raises(NsmError) as refused:
        await bench.request(preferences=(Mechanism(REMOTE, kind),))
    assert refused.value.code is Code.UNIMPLEMENTED
    assert refused.value.message == f"{kind}: {REASONS[kind]}"
    await bench.nothing_is_left()


async def test_who_prefers_ipsec_gets_wireguard(bench: Bench) -> None:
    answer = await bench.request(preferences=(Mechanism(REMOTE, IPSEC), wireguard()))
    assert answer.mechanism is not None
    assert answer.mechanism.type == WIREGUARD


async def test_context_goes_to_the_right_ends(bench: Bench) -> None:
    def enrich(answer: Connection) -> Connection:
        ip = replace(
            answer.ip,
            src_routes=(Route("10.0.0.0/8"),),
            policies=(PolicyRoute("172.16.0.1/32"),),
            ip_neighbors=(IpNeighbor("172.16.0.9", "02:00:00:00:00:01"),),
        )
        macs = EthernetContext("02:00:00:00:00:0a", "02:00:00:00:00:0b")
        return replace(answer, context=replace(answer.ctx, ip_context=ip, ethernet_context=macs))

    bench.behind.change = enrich
    await bench.request()
    intent = bench.reconciler.intent("c-1")
    assert intent is not None
    assert isinstance(intent.client, KernelEnd)
    assert isinstance(intent.endpoint, KernelEnd)
    assert Route("10.0.0.0/8", "172.16.0.0") in intent.client.routes
    assert intent.client.rules == (PolicyRoute("172.16.0.1/32", routes=(Route("0.0.0.0/0", "172.16.0.0"),)),)
    assert intent.endpoint.rules == ()
    assert (intent.client.mac, intent.endpoint.mac) == ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
    assert intent.client.neighbours == intent.endpoint.neighbours != ()


# -- refresh -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [LOCAL_URL, REMOTE_URL])
async def test_three_refreshes_write_nothing_and_ask_no_registry(bench: Bench, url: str) -> None:
    bench.registry.urls = [url]
    answer = await bench.request()
    written, asked = list(bench.plane.log), bench.registry.asked
    for _ in range(3):
        bench.registry.is_away = True
        again = replace(answer, mechanism=kernel())
        answer = await bench.request(again)
    assert bench.plane.log == written
    assert bench.registry.asked == asked
    assert answer.route.segments[1].metrics["server_rx_packets"] == "1"
    assert answer.route.segments[1].metrics["client_rx_packets"] == "6"
    first_mechanism, last = bench.behind.asked[0][2][0], bench.behind.asked[-1]
    assert last[1].mechanism is not None
    assert INODE_URL not in last[1].mechanism.parameters
    assert last[2][0] == first_mechanism  # the same key and port are offered again


async def test_a_refresh_keeps_the_new_expiry(bench: Bench) -> None:
    answer = await bench.request()
    later = round((time.time() + 1200) * 1e9)
    segments = (replace(answer.route.segments[0], expires=later), *answer.route.segments[1:])
    await bench.request(replace(answer, path=replace(answer.route, segments=segments)))
    assert bench.store.rows["c-1"].intent.expires == pytest.approx(later / 1e9)


async def test_an_answered_tunnel_keeps_vni_over_refreshes(bench: Bench) -> None:
    bench.registry.payload = ETHERNET
    answer = await bench.request(preferences=(vxlan(),))
    again = await bench.request(answer, preferences=(vxlan(),))
    assert again.mechanism == answer.mechanism


async def test_a_failed_refresh_keeps_the_live_connection(bench: Bench) -> None:
    answer = await bench.request()
    before, row = dict(bench.plane.objects), bench.store.rows["c-1"]
    bench.behind.failing.add(LOCAL_URL)
    with pytest.raises(NsmError):
        await bench.request(answer)
    bench.behind.failing.clear()
    bench.behind.change = lambda each: replace(each, context=replace(each.ctx, mtu=40))
    with pytest.raises(NsmError, match="MTU"):
        await bench.request(answer)
    bench.behind.change = lambda each: replace(each, context=replace(each.ctx, mtu=1300))
    bench.plane.errors["update", "config"] = 1
    with pytest.raises(NsmError, match="planned"):
        await bench.request(answer)
    await bench.reconciler.drain()
    assert bench.plane.objects == before
    assert bench.store.rows["c-1"] == row
    assert bench.behind.closed == []
    bench.behind.change = lambda each: each
    await bench.request(answer)


async def test_an_endpoint_that_moved_is_found_again(bench: Bench) -> None:
    answer = await bench.request()
    bench.behind.failing.add(LOCAL_URL)
    bench.registry.urls = ["unix:///elsewhere.sock"]
    await bench.request(answer)
    assert bench.behind.asked[-1][0] == "unix:///elsewhere.sock"


# -- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "config", "cross"])
async def test_a_request_that_fails_here_leaves_nothing_and_closes_behind(bench: Bench, kind: str) -> None:
    bench.plane.errors["create", kind] = 1
    with pytest.raises(NsmError, match="planned"):
        await bench.request()
    ((url, closed),) = bench.behind.closed
    assert url == LOCAL_URL
    assert closed.mechanism is not None
    assert not closed.mechanism.get(INODE_URL), "the call's descriptors may be closed by then"
    await bench.nothing_is_left()


async def test_a_request_that_fails_behind_leaves_nothing(bench: Bench) -> None:
    bench.registry.urls = [REMOTE_URL]
    bench.behind.failing.add(REMOTE_URL)
    with pytest.raises(NsmError) as caught:
        await bench.request()
    assert caught.value.code is Code.UNAVAILABLE
    assert bench.behind.closed == []
    await bench.nothing_is_left()


async def test_the_next_endpoint_is_tried_and_turns_are_taken(bench: Bench) -> None:
    bench.registry.urls = [LOCAL_URL, REMOTE_URL]
    bench.behind.failing.add(LOCAL_URL)
    answer = await bench.request()
    assert answer.network_service_endpoint_name == "nse-1"
    bench.behind.failing.clear()
    await bench.close(answer)
    names = []
    for number in range(4):
        asked = first(f"c-{number + 5}")
        given = await bench.request(asked, (kernel(),), 5.0)
        names.append(given.network_service_endpoint_name)
        await bench.close(given)
    assert set(names) == {"nse-0", "nse-1"}


async def test_a_deadline_leaves_nothing(bench: Bench) -> None:
    bench.plane.gate = asyncio.Event()
    with pytest.raises(NsmError) as caught:
        await bench.request(seconds=0.05)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    bench.plane.gate.set()
    await bench.role.stop()
    await bench.nothing_is_left()
    assert len(bench.behind.closed) == 1


async def test_a_full_disk_is_said_and_the_next_request_succeeds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_row: object) -> None:
        raise NsmError(Code.RESOURCE_EXHAUSTED, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(bench.store, "put", full)
        with pytest.raises(NsmError) as caught:
            await bench.request()
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert len(bench.behind.closed) == 1
    await bench.nothing_is_left()
    await bench.request()


async def test_a_namespace_that_ends_while_the_next_hop_is_asked(bench: Bench) -> None:
    def gone(answer: Connection) -> Connection:
        bench.plane.namespaces.end(NetnsId(4, 20, 20))
        return answer

    bench.behind.change = gone
    with pytest.raises(NsmError) as caught:
        await bench.request()
    assert caught.value.field == "connection.mechanism.parameters.inodeURL"
    assert len(bench.behind.closed) == 1
    await bench.nothing_is_left()


async def test_users_of_a_namespace_are_known(bench: Bench) -> None:
    await bench.request()
    assert bench.role.users_of(NetnsId(4, 10, 10)) == ("c-1",)
    assert bench.role.users_of(NetnsId(4, 20, 20)) == ("c-1",)
    assert bench.role.users_of(NetnsId(4, 30, 30)) == ()


def ip(**facts: object) -> ConnectionContext:
    return ConnectionContext(ip_context=replace(IpContext(), **facts))  # type: ignore[arg-type]


BAD = {
    "no service": (first(network_service=""), None, "connection.network_service"),
    "unknown payload": (first(payload="MPLS"), None, "connection.payload"),
    "no mechanism": (first(), (), "mechanism_preferences"),
    "unknown mechanism": (first(), (Mechanism(LOCAL, "MAGIC"),), "mechanism_preferences[0].type"),
    "mechanism not carried": (first(), (Mechanism(LOCAL, "MEMIF"),), "mechanism_preferences[0].type"),
    "mechanism of the other payload": (first(), (vxlan(),), "mechanism_preferences[0].type"),
    "unknown agreed mechanism": (first(mechanism=Mechanism(LOCAL, "X")), None, "connection.mechanism.type"),
    "long name": (first(), (kernel("x" * 16),), "connection.mechanism.parameters.name"),
    "name with slash": (first(), (kernel("a/b"),), "connection.mechanism.parameters.name"),
    "descriptor missing": (first(), (kernel(url="inode://4/5"),), "connection.mechanism.parameters.inodeURL"),
    "namespace gone": (first(), (kernel(url="file:///gone"),), "connection.mechanism.parameters.inodeURL"),
    "bad address": (
        first(context=ip(src_ip_addrs=("x",))),
        None,
        "connection.context.ip_context.src_ip_addrs[0]",
    ),
    "bad route": (
        first(context=ip(dst_routes=(Route("10.0.0.0/40"),))),
        None,
        "connection.context.ip_context.dst_routes[0].prefix",
    ),
    "hop of another family": (
        first(context=ip(src_routes=(Route("10.0.0.0/8", "fd00::1"),))),
        None,
        "connection.context.ip_context.src_routes[0].next_hop",
    ),
    "bad neighbour": (
        first(context=ip(ip_neighbors=(IpNeighbor("10.0.0.1", "zz"),))),
        None,
        "connection.context.ip_context.ip_neighbors[0].hardware_address",
    ),
    "bad policy": (
        first(context=ip(policies=(PolicyRoute("10.0.0.1", "tcp", "90-80"),))),
        None,
        "connection.context.ip_context.policies[0].dst_port",
    ),
    "too many addresses": (
        first(context=ip(src_ip_addrs=tuple(f"10.0.{n // 250}.{n % 250}/32" for n in range(1025)))),
        None,
        "connection.context.ip_context.src_ip_addrs",
    ),
    "the same address at both ends": (
        first(context=ip(src_ip_addrs=("10.0.0.1/32",), dst_ip_addrs=("10.0.0.1/24",))),
        None,
        "connection.context.ip_context.src_ip_addrs",
    ),
    "small MTU with IPv6": (
        first(context=replace(ip(src_ip_addrs=("fd00::1/128",)), mtu=1279)),
        None,
        "connection.context.MTU",
    ),
    "tiny MTU": (first(context=ConnectionContext(mtu=10)), None, "connection.context.MTU"),
    "bad MAC": (
        first(context=ConnectionContext(ethernet_context=EthernetContext("01:00:5e:00:00:01"))),
        None,
        "connection.context.ethernet_context.src_mac",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_input_is_refused_by_field_and_leaves_nothing(bench: Bench, case: str) -> None:
    connection, preferences, where = BAD[case]
    with pytest.raises(NsmError) as caught:
        await bench.request(connection, preferences)
    assert caught.value.field == where
    assert caught.value.code in {Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION}
    assert bench.behind.asked == []
    await bench.nothing_is_left()
    await bench.request()


BAD_TUNNEL = {
    SRC_IP: vxlan(**{SRC_IP: "nonsense"}),
    "src_port": vxlan(src_port="70000"),
    VNI: vxlan(**{VNI: "16777216"}),
    MTU: vxlan(**{MTU: "-1"}),
}


@pytest.mark.parametrize("parameter", BAD_TUNNEL)
async def test_bad_tunnel_parameters_are_refused_by_name(bench: Bench, parameter: str) -> None:
    bench.registry.payload = ETHERNET
    with pytest.raises(NsmError) as caught:
        await bench.request(preferences=(BAD_TUNNEL[parameter],))
    assert caught.value.field == f"connection.mechanism.parameters.{parameter}"
    await bench.nothing_is_left()


async def test_what_another_connection_has_is_refused(bench: Bench) -> None:
    await bench.request()
    with pytest.raises(NsmError) as taken:
        await bench.request(first("c-2"))
    assert (taken.value.code, taken.value.field) == (
        Code.ALREADY_EXISTS,
        "connection.mechanism.parameters.name",
    )
    with pytest.raises(NsmError) as same:
        await bench.request(first("c-3"), (kernel("nsm-3"),))  # the endpoint's name is the same again
    assert same.value.code is Code.ALREADY_EXISTS
    bench.behind.change = lambda each: replace(
        each, mechanism=Mechanism(LOCAL, KERNEL, {INODE_URL: ENDPOINT_NS, INTERFACE_NAME: "nse-9"})
    )
    with pytest.raises(NsmError) as address:
        await bench.request(first("c-4"), (kernel("nsm-4"),))
    assert address.value.field == "connection.context.ip_context.src_ip_addrs"
    assert set(bench.store.rows) == {"c-1"}
    assert len(bench.behind.closed) == 3


async def test_a_vni_that_is_in_use_is_refused(bench: Bench) -> None:
    bench.registry.payload = ETHERNET
    answer = await bench.request(preferences=(vxlan(),))
    assert answer.mechanism is not None
    with pytest.raises(NsmError) as caught:
        await bench.request(first("c-2"), (vxlan(**{VNI: answer.mechanism.get(VNI)}),))
    assert caught.value.field == "connection.mechanism.parameters.vni"


# -- close, restart, load ----------------------------------------------------------------------------


async def test_close_tells_the_next_hop_and_clears_afterwards(bench: Bench) -> None:
    answer = await bench.request()
    await bench.close(answer)
    url, closed = bench.behind.closed[0]
    assert url == LOCAL_URL
    assert closed.mechanism is not None
    assert closed.mechanism.get(INTERFACE_NAME) == "nse-1"
    await bench.nothing_is_left()


async def test_the_workloads_are_bare_before_the_next_hop_is_closed(bench: Bench) -> None:
    """The endpoint gives the addresses to the next connection at once, while rings of others take long to go."""
    left: list[int] = []

    def count() -> None:
        left.append(sum(key.kind == "config" for key in bench.plane.objects))

    def with_own_ends(answer: Connection) -> Connection:
        assert answer.mechanism is not None
        own = answer.mechanism.having(**{INTERFACE_NAME: f"nse-{answer.id}"})
        return replace(answer, mechanism=own, context=replace(answer.ctx, ip_context=IpContext()))

    bench.behind.change, bench.behind.on_close = with_own_ends, count
    answers = [await bench.request(first(f"c-{number}"), (kernel(f"nsm-{number}"),)) for number in range(3)]
    rings = bench.plane.gates["delete", "link"] = asyncio.Event()
    for answer in answers:
        await bench.close(answer)
    assert left == [4, 2, 0]
    assert sum(key.kind == "link" for key in bench.plane.objects) == 6
    rings.set()
    await bench.nothing_is_left()


async def test_close_reaches_a_next_hop_that_was_away_when_it_registers(bench: Bench) -> None:
    bench.registry.urls = [REMOTE_URL]
    answer = await bench.request()
    bench.behind.failing.add(REMOTE_URL)
    await bench.close(answer)
    await bench.reconciler.drain()
    assert bench.census() == UPLINK, "our end does not wait"
    assert bench.behind.closed == []
    bench.registry.registered.put_nowait("tcp://10.0.0.3:5001")
    async with asyncio.timeout(10):
        await bench.behind.news.wait()
    ((url, closed),) = bench.behind.closed
    assert (url, closed.id) == ("tcp://10.0.0.3:5001", "c-1")
    assert closed.mechanism is not None
    assert closed.mechanism.type == WIREGUARD


async def test_a_request_after_a_close_that_was_late_is_not_closed(bench: Bench) -> None:
    answer = await bench.request()
    bench.behind.failing.add(LOCAL_URL)
    await bench.close(answer)
    bench.behind.failing.clear()
    again = await bench.request(answer)
    bench.registry.registered.put_nowait(LOCAL_URL)
    assert len(bench.role._late) == 0
    await bench.close(again)
    assert len(bench.behind.closed) == 1, "by the call, not by the registration"


async def test_a_name_may_be_used_again_at_once_and_waits_for_the_old_one_to_go(bench: Bench) -> None:
    answer = await bench.request()
    bench.plane.errors["delete", "link"] = 1
    await bench.close(answer)
    await bench.request(first("c-2"))
    await bench.reconciler.drain()
    intent = bench.reconciler.intent("c-2")
    assert intent is not None
    assert bench.census() == UPLINK | {item.key for item in bench.plane.items(intent)}


async def test_close_of_an_unknown_connection_is_no_error(bench: Bench) -> None:
    await bench.close(first("nobody"))
    await bench.nothing_is_left()


@pytest.mark.parametrize("url", [LOCAL_URL, REMOTE_URL, "unix:///proc/self/fd/9"])
async def test_the_next_agent_adopts_without_a_write(bench: Bench, url: str) -> None:
    bench.registry.urls = [url]
    answer = await bench.request()
    await bench.reconciler.drain()
    written = list(bench.plane.log)
    second = Bench(bench.plane, bench.store)
    second.registry.urls = [url]
    second.behind = bench.behind
    second.role._next_hop = bench.behind
    ((connection, remaining),) = await second.role.adopt()
    assert (connection.id, connection.mechanism) == ("c-1", kernel())
    assert 0 < remaining <= 600
    again = await second.request(replace(answer, mechanism=kernel()))
    assert bench.plane.log == written
    await second.close(again)
    assert len(bench.behind.closed) == 1
    await second.nothing_is_left()
    await second.stop()


async def test_what_is_let_go_of_leaves_nothing_and_no_next_hop_is_told(bench: Bench) -> None:
    await bench.request()
    bench.role.let_go()
    await bench.nothing_is_left()
    assert bench.behind.closed == []


@pytest.mark.parametrize("sign", ["hops behind us", "addresses"])
async def test_links_of_the_go_forwarder_before_us_make_room(bench: Bench, sign: str) -> None:
    client, endpoint = NetnsId(4, 10, 10), NetnsId(4, 20, 20)
    others = {(client, "server-c-9"), (client, "client-c-0"), (endpoint, "server-c-0")}
    left = {(client, "server-c-0"), (endpoint, "client-c-0")}
    bench.plane.namespaces.foreign = {*others, *left}
    asked = first()
    if sign == "addresses":
        asked = replace(asked, context=ConnectionContext(ip_context=IpContext(("172.16.0.1/32",))))
    else:
        route = asked.route
        asked = replace(asked, path=replace(route, segments=(*route.segments, PathSegment("nse", "n-1"))))
    await bench.request(asked)
    assert bench.plane.namespaces.foreign == others


async def test_for_a_new_connection_nobody_looks_for_links_of_others(bench: Bench) -> None:
    bench.plane.namespaces.foreign = {(NetnsId(4, 10, 10), "server-c-0")}
    await bench.request()
    assert len(bench.plane.namespaces.foreign) == 1


async def test_what_expired_while_the_agent_was_away_goes(bench: Bench) -> None:
    await bench.request()
    second = Bench(bench.plane, bench.store)
    second.now += 601
    assert await second.role.adopt() == []
    await second.nothing_is_left()
    await second.stop()


async def test_two_hundred_at_once_come_and_go(bench: Bench) -> None:
    bench.registry.urls = [REMOTE_URL]
    for number in range(200):
        bench.plane.namespaces.known[f"/ns/{number}"] = NetnsId(4, 1000 + number, number)
    asked = [(first(f"c-{n}"), (kernel("nsm-1", f"file:///ns/{n}"),)) for n in range(200)]
    answers = await asyncio.gather(*(bench.request(*each, 15.0) for each in asked))
    ends = [intent.endpoint for intent in bench.reconciler.intents()]
    ports = {end.local_port for end in ends if isinstance(end, WireguardEnd)}
    assert len(ports) == len({end.private_key for end in ends if isinstance(end, WireguardEnd)}) == 200
    await asyncio.gather(*(bench.close(each) for each in answers))
    await bench.nothing_is_left()
