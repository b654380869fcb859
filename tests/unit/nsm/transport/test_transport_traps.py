"""What a peer does to descriptors and tokens that is easily got wrong and shows only against a real one."""

import array
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    EventType,
    MonitorScopeSelector,
    NetworkServiceRequest,
)
from nsm.service.fds import file_url, inode_url, open_file
from nsm.transport.call import Call
from nsm.transport.descriptors import key_of
from nsm.transport.server import Server
from nsm.transport.wire import DescriptorsLostError, Wire
from nsm.wire.methods import MONITOR_CONNECTIONS
from tests.unit.nsm.transport.bench import Bench, ask, request

MOST = 253
"""Descriptors the kernel lets one message carry (SCM_MAX_FD)."""


@pytest.fixture
async def joined() -> AsyncIterator[tuple[Wire, socket.socket]]:
    """Our end of a unix socket as a wire, and the peer's end."""
    ours, theirs = socket.socketpair()
    wire = Wire(ours)
    yield wire, theirs
    wire.close()
    theirs.close()


def send(sock: socket.socket, files: list[Path]) -> None:
    """One byte with a descriptor of each file."""
    fds = [os.open(file, os.O_RDONLY) for file in files]
    sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    for fd in fds:
        os.close(fd)


def files_in(directory: Path, count: int) -> list[Path]:
    files = [directory / str(number) for number in range(count)]
    for file in files:
        file.touch()
    return files


async def test_as_many_descriptors_as_the_kernel_lets_one_message_carry_arrive(
    joined: tuple[Wire, socket.socket], tmp_path: Path
) -> None:
    wire, theirs = joined
    send(theirs, files_in(tmp_path, MOST))
    assert wire.receive() == (b"x", True)
    assert len(wire.received) == MOST


async def test_descriptors_that_the_kernel_dropped_end_the_connection(
    joined: tuple[Wire, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire, theirs = joined
    send(theirs, files_in(tmp_path, 3))
    monkeypatch.setattr("nsm.transport.wire._CONTROL_SPACE", socket.CMSG_SPACE(array.array("i").itemsize))
    with pytest.raises(DescriptorsLostError):
        wire.receive()


async def test_a_descriptor_belongs_to_the_connection_it_came_on(bench: Bench) -> None:
    async def take(message: NetworkServiceRequest, call: Call) -> Connection:
        os.close(await call.receive_fd(message.connection.labels["it"], 0.2))
        return message.connection

    bench.on_request = take
    first, second = await bench.peer(), await bench.peer()
    url = first.transceiver.queue_file("/proc/self/ns/net")
    assert (await ask(first, request(it=url))).id == "one"
    with pytest.raises(grpc.RpcError, match="did not arrive on this connection"):
        await ask(second, request(it=url))


def test_a_namespace_is_named_by_the_numbers_of_what_its_link_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "netns"
    link.symlink_to("/proc/self/ns/net")
    expected = Path("/proc/self/ns/net").stat()
    fd = open_file(f"file://{link}")
    try:
        assert inode_url(fd) == f"inode://{expected.st_dev}/{expected.st_ino}"
        assert key_of(fd) == (expected.st_dev, expected.st_ino)
        assert Path(file_url(fd).removeprefix("file://")).stat().st_ino == expected.st_ino
    finally:
        os.close(fd)


async def test_a_stream_carries_the_token_too(bench: Bench) -> None:
    async def show(_: MonitorScopeSelector, call: Call) -> AsyncIterator[ConnectionEvent]:
        yield ConnectionEvent(EventType.UPDATE, {key: Connection(id=key) for key, _ in call.metadata})

    server = Server(bench.authority.identity("/server/other"))
    server.stream(MONITOR_CONNECTIONS, show)
    (url,) = await server.start([f"unix://{bench.directory}/other.sock"])
    seen: list[str] = []
    async for event in bench.channel(url).stream(MONITOR_CONNECTIONS, MonitorScopeSelector(), timeout=10):
        seen += event.connections
    await server.stop(0)
    assert {"nsm-client-token", "nsm-client-token-expires"} <= set(seen)
