"""What no daemon may stumble over: each is a status with field and expectation, nothing stays, everybody serves on."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.errors import Code, NsmError
from nsm.model.mechanism import INODE_URL, INTERFACE_NAME, KERNEL, LOCAL, Mechanism
from nsm.model.path import Path, PathSegment
from nsm.service.fds import inode_url
from nsmctl.lab import namespaces
from tests.fakes.caller import Caller, caller
from tests.scenes import DATAPLANES, Scene, carried, links, settled

SERVICE = "server-service"


class Place:
    """A lab with an endpoint on each node, and a namespace that asks for what cannot be."""

    def __init__(self, lab: Scene) -> None:
        self.lab = lab
        lab.endpoint("server")
        lab.endpoint("bridge", payload="ETHERNET", NSM_CIDR_PREFIX="[172.16.9.0/24],[fd00:172:9::/112]")
        self.space = lab.workload("odd")

    @property
    def forwarder(self) -> str:
        return f"unix://{self.lab.near.directory}/forwarder.sock"

    @asynccontextmanager
    async def caller(self, url: str = "") -> AsyncIterator[Caller]:
        near = self.lab.near
        async with caller("odd", url or near.manager, near.identities) as made:
            yield made


@pytest.fixture
def place(lab: Scene) -> Place:
    return Place(lab)


def says(error: NsmError, code: Code, *words: str) -> None:
    """The status, and what the message must name: the field first, then the expectation."""
    assert error.code is code, error
    for word in words:
        assert word in error.message, error


def in_context(connection: Connection, context: ConnectionContext) -> Connection:
    return replace(connection, context=context)


async def unknown_mechanism(place: Place, who: Caller) -> None:
    error = await who.refused(who.first(SERVICE), Mechanism(LOCAL, "TELEPATHY"))
    says(error, Code.INVALID_ARGUMENT, "mechanism_preferences[0].type: ", "expected")


async def no_mechanism(place: Place, who: Caller) -> None:
    says(await who.refused(who.first(SERVICE)), Code.INVALID_ARGUMENT, "mechanism_preferences: expected")


async def unknown_payload(place: Place, who: Caller) -> None:
    asked = replace(who.first(SERVICE), payload="SMOKE")
    error = await who.refused(asked, who.kernel(place.space))
    says(error, Code.NOT_FOUND, "connection.network_service: ", "payload SMOKE")


async def long_name(place: Place, who: Caller) -> None:
    error = await who.refused(who.first(SERVICE), who.kernel(place.space, "a-name-of-16-byt"))
    says(error, Code.INVALID_ARGUMENT, "parameters.name: expected", "15 bytes")


async def taken_name(place: Place, who: Caller) -> None:
    await asyncio.to_thread(bridge, place, "add")
    try:
        error = await who.refused(who.first(SERVICE), who.kernel(place.space, "taken"))
        says(error, Code.ALREADY_EXISTS, "name", "taken")
    finally:
        await asyncio.to_thread(bridge, place, "del")


def bridge(place: Place, verb: str) -> None:
    with namespaces.netlink(place.space) as ip:
        ip.link(verb, ifname="taken", kind="bridge")


async def no_namespace(place: Place, who: Caller) -> None:
    """The descriptor is one of something else."""
    fd = os.open("/dev/null", os.O_RDONLY)
    who.fds.append(fd)
    error = await who.refused(who.first(SERVICE), Mechanism(LOCAL, KERNEL, {INODE_URL: inode_url(fd)}))
    says(error, Code.INVALID_ARGUMENT, "parameters.inodeURL: expected", "namespace")


async def no_descriptor(place: Place, who: Caller) -> None:
    """It never arrives."""
    url = "inode://4/4026530000"
    mechanism = Mechanism(LOCAL, KERNEL, {INODE_URL: url, INTERFACE_NAME: "nsm-1"})
    error = await who.refused(who.first(SERVICE), mechanism, seconds=2.0)
    says(error, Code.DEADLINE_EXCEEDED)
    if "Deadline" not in error.message:  # gRPC's own words if ours come too late
        says(error, Code.DEADLINE_EXCEEDED, url, "did not arrive")


async def oversized_token(place: Place, who: Caller) -> None:
    own = who.first(SERVICE)
    big = replace(own.route.segments[0], token="x" * 17_000)
    asked = replace(own, path=Path(0, (big, PathSegment(name="a", id="b"))))
    error = await who.refused(asked, who.kernel(place.space))
    says(error, Code.INVALID_ARGUMENT, "path_segments[0].token: expected at most 16384 bytes")


async def long_path(place: Place, who: Caller) -> None:
    own = who.first(SERVICE)
    more = tuple(PathSegment(name=f"hop-{n}", id=str(n)) for n in range(64))
    asked = replace(own, path=Path(0, (*own.route.segments, *more)))
    error = await who.refused(asked, who.kernel(place.space))
    says(error, Code.INVALID_ARGUMENT, "connection.path.path_segments: expected at most 64")


async def index_out_of_range(place: Place, who: Caller) -> None:
    own = who.first(SERVICE)
    for index in (1, 2**32 - 1):
        error = await who.refused(replace(own, path=Path(index, own.route.segments)))
        says(
            error, Code.INVALID_ARGUMENT, "connection.path.index: expected an index of one of the 1 segments"
        )


async def one_address_twice(place: Place, who: Caller) -> None:
    ip = IpContext(src_ip_addrs=("192.0.2.7/32",), dst_ip_addrs=("192.0.2.7/32",))
    asked = in_context(who.first(SERVICE), ConnectionContext(ip_context=ip))
    error = await who.refused(asked, who.kernel(place.space))
    says(error, Code.INVALID_ARGUMENT, "ip_context.src_ip_addrs: ", "192.0.2.7")


async def address_of_another_connection(place: Place, who: Caller) -> None:
    first = await who.request(who.first(SERVICE), who.kernel(place.space))
    ip = IpContext(src_ip_addrs=first.ip.src_ip_addrs)
    asked = in_context(who.first("bridge-service", "odd-1"), ConnectionContext(ip_context=ip))
    error = await who.refused(asked, who.kernel(place.space, "nsm-2"))
    says(error, Code.ALREADY_EXISTS, "ip_context.src_ip_addrs: ", "in use")
    await who.close(first)


async def mtu_too_small(place: Place, who: Caller) -> None:
    asked = in_context(who.first(SERVICE), ConnectionContext(mtu=1279))
    error = await who.refused(asked, who.kernel(place.space))
    says(error, Code.INVALID_ARGUMENT, "connection.context.MTU: expected at least 1280")


async def unknown_service(place: Place, who: Caller) -> None:
    error = await who.refused(who.first("nowhere"), who.kernel(place.space))
    says(error, Code.NOT_FOUND, "connection.network_service: ", "'nowhere' is not registered")


CASES: tuple[Callable[[Place, Caller], Awaitable[None]], ...] = (
    unknown_mechanism,
    no_mechanism,
    unknown_payload,
    long_name,
    taken_name,
    no_namespace,
    no_descriptor,
    oversized_token,
    long_path,
    index_out_of_range,
    one_address_twice,
    address_of_another_connection,
    mtu_too_small,
    unknown_service,
)


async def test_each_is_a_status_with_field_and_expectation(place: Place) -> None:
    before = place.lab.census()
    async with place.caller() as who:
        for case in CASES:
            try:
                await case(place, who)
                assert place.lab.left_since(before) == ()
                assert settled(lambda: links(place.space), lambda found: not found) == {}
            except BaseException as error:
                error.add_note(case.__name__)
                raise
        answer = await who.request(who.first(SERVICE), who.kernel(place.space))
        await who.close(answer)


async def test_the_forwarder_refuses_what_a_manager_would_not_pass_on(place: Place) -> None:
    async with place.caller(place.forwarder) as who:
        asked = replace(who.first(SERVICE), payload="SMOKE")
        error = await who.refused(asked, who.kernel(place.space))
        says(error, Code.INVALID_ARGUMENT, "connection.payload: expected ETHERNET or IP")


async def test_a_tunnel_port_that_is_taken(place: Place) -> None:
    """By somebody on the node: on either dataplane the kernel shall not answer what is a tunnel's."""
    with namespaces.entered(place.lab.near.netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 4789))
        async with place.caller() as who:
            error = await who.refused(who.first("bridge-service"), who.kernel(place.space))
    says(error, Code.RESOURCE_EXHAUSTED, "mechanism.parameters.", "expected UDP port 4789", "to be free")
    async with place.caller() as who:
        await who.close(await who.request(who.first("bridge-service"), who.kernel(place.space)))


@pytest.mark.parametrize("shared_lab", DATAPLANES[1:], indirect=True)
async def test_a_vpp_that_dies_in_the_middle_of_a_request(place: Place) -> None:
    """Stopped first, so that it has read nothing of what the agent sent when it is killed."""
    lab, name = place.lab, f"{place.lab.near.name}/forwarder"
    vpp: int = json.loads((lab.near.vpp_directory / "vpp.pid").read_text())["pid"]
    since = lab.mark_log(name)
    async with place.caller() as who:
        os.kill(vpp, signal.SIGSTOP)
        asking = asyncio.create_task(who.refused(who.first(SERVICE), who.kernel(place.space)))
        api = lab.near.vpp_directory / "api.sock"
        assert await asyncio.to_thread(settled, lambda: lab.is_unread(lab.near, api), bool)
        os.kill(vpp, signal.SIGKILL)
        says(await asking, Code.UNAVAILABLE, "VPP")
        await asyncio.to_thread(lab.wait, name, "another VPP answers", since=since)
        await who.close(await who.request(who.first(SERVICE), who.kernel(place.space)))


async def test_a_namespace_that_has_gone_before_the_request(place: Place) -> None:
    """Its name is gone, and only the descriptor keeps it: it is served or refused, and closing it leaves nothing."""
    async with place.caller() as who:
        mechanism = who.kernel(place.space)
        namespaces.delete(place.lab.world.state.workloads["odd"].space)
        try:
            answer = await who.request(who.first(SERVICE), mechanism)
        except NsmError as error:
            says(error, Code.FAILED_PRECONDITION, "inodeURL")
        else:
            await who.close(answer)


async def test_a_namespace_that_goes_during_the_request(place: Place) -> None:
    """The agent holds it while the Request lasts: it succeeds or is refused, and closing it leaves nothing."""
    far = f"{place.lab.far.name}/forwarder"
    async with place.caller() as who:
        with place.lab.stopped(far):
            asking = asyncio.create_task(who.request(who.first(SERVICE), who.kernel(place.space)))
            await asyncio.to_thread(settled, lambda: place.lab.is_asked(far), bool)
            namespaces.delete(place.lab.world.state.workloads["odd"].space)
        (outcome,) = await asyncio.gather(asking, return_exceptions=True)
        if isinstance(outcome, NsmError):
            assert outcome.code not in {Code.INTERNAL, Code.UNKNOWN}, outcome
        else:
            assert isinstance(outcome, Connection)
            await who.close(outcome)


def test_a_namespace_that_has_gone_takes_its_connection_with_it(place: Place) -> None:
    """Nobody closes the connection: the kernel tells of the namespace's end, once no descriptor keeps it."""
    lab, forwarder = place.lab, f"{place.lab.near.name}/forwarder"
    before = lab.census()
    space = lab.workload("passing")

    async def connect() -> None:
        async with place.caller() as who:
            await who.request(who.first(SERVICE), who.kernel(space))

    asyncio.run(connect())
    gone = lab.mark_log(forwarder)
    lab.remove("passing")
    lab.wait(forwarder, "namespace.gone", since=gone)
    assert lab.left_since(before) == ()
    (again,) = lab.client("next", SERVICE)
    carried(lab.probe(again, "next", "server", rate=200, seconds=0.2))
