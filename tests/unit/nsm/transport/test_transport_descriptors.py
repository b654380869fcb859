"""Descriptors both ways, against a peer that behaves as grpcfd does."""

# ruff: noqa: ASYNC240 - small files of /proc and of a temporary directory

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from nsm.model.connection import Connection, NetworkServiceRequest
from nsm.model.errors import Code, NsmError
from nsm.transport import descriptors
from nsm.transport.call import Call
from nsm.transport.descriptors import Received, inode_url, key_of, parse_inode
from tests.fakes.fd_peer import Transceiver
from tests.unit.nsm.transport.bench import REQUEST, Bench, ask, open_fds, request


def make_files(directory: Path, count: int) -> list[Path]:
    (directory / "files").mkdir()
    files = [directory / "files" / str(at) for at in range(count)]
    for file in files:
        file.write_text(file.name)
    return files


def remove_files(files: list[Path]) -> None:
    for file in files:
        file.unlink()
    files[0].parent.rmdir()


async def take_all(message: NetworkServiceRequest, call: Call) -> Connection:
    """Answers the content of every file whose URL is a label."""
    found = {}
    for name, url in message.connection.labels.items():
        fd = await call.receive_fd(url)
        try:
            found[name] = Path(f"/proc/self/fd/{fd}").read_text()
        finally:
            os.close(fd)
    return replace(message.connection, labels=found)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 300])
async def test_they_arrive_with_the_request(bench: Bench, count: int) -> None:
    bench.on_request = take_all
    files = make_files(bench.directory, count)
    client = await bench.peer()
    if count > 64:  # grpcfd sends 64 a write: the rest leaves with the writes of other calls
        for file in files[64:]:
            client.transceiver.queue_file(str(file))
            await ask(client, request("other"))
    urls = {file.name: client.transceiver.queue_file(str(file)) for file in files[:64]}
    urls |= {file.name: inode_url(key_of_path(file)) for file in files[64:]}
    answer = await ask(client, request(**urls))
    assert dict(answer.labels) == {name: name for name in urls}
    remove_files(files)


def key_of_path(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


async def test_one_byte_reads_carry_them_too(bench: Bench) -> None:
    bench.on_request = take_all
    files = make_files(bench.directory, 70)
    client = await bench.peer(dribble=True)
    for file in files:
        client.transceiver.queue_file(str(file))
    await ask(client, request("first"))
    answer = await ask(client, request(**{file.name: inode_url(key_of_path(file)) for file in files}))
    assert len(answer.labels) == 70
    remove_files(files)


@pytest.mark.parametrize("is_late", [True, False], ids=["after the request", "before the request"])
async def test_they_may_come_after_or_before(bench: Bench, is_late: bool) -> None:
    arrived = asyncio.Event()

    async def take(message: NetworkServiceRequest, call: Call) -> Connection:
        arrived.set()
        return await take_all(message, call) if message.connection.labels else message.connection

    bench.on_request = take
    files = make_files(bench.directory, 1)
    client = await bench.peer()
    label = {"it": inode_url(key_of_path(files[0]))}
    if is_late:
        running = asyncio.create_task(ask(client, request(**label)))
        await arrived.wait()
        client.transceiver.queue_file(str(files[0]))
        await ask(client, request("carrier"))
        answer = await running
    else:
        client.transceiver.queue_file(str(files[0]))
        await ask(client, request("carrier"))
        answer = await ask(client, request(**label))
    assert answer.labels["it"] == "0"
    assert (await ask(client, request(**label))).labels["it"] == "0"  # still there for a second call
    remove_files(files)


async def test_one_that_never_comes_ends_with_the_deadline_and_names_the_inode(bench: Bench) -> None:
    bench.on_request = take_all
    client = await bench.peer()
    with pytest.raises(grpc.RpcError) as caught:
        await ask(client, request(it="inode://4/12345"), timeout=1.0)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "inode://4/12345" in (caught.value.details() or "")
    assert (await ask(client, request())).id == "one"


async def test_one_that_never_comes_is_bounded_without_a_deadline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nsm.transport.call.FD_TIMEOUT", 0.05)
    bench.on_request = take_all
    client = await bench.peer()
    with pytest.raises(grpc.RpcError) as caught:
        await ask(client, request(it="inode://4/12345"), timeout=None)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_end_of_the_connection_ends_the_wait(bench: Bench) -> None:
    failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
    started = asyncio.Event()

    async def take(message: NetworkServiceRequest, call: Call) -> Connection:
        started.set()
        try:
            return await take_all(message, call)
        except BaseException as error:
            failed.set_result(error)
            raise

    bench.on_request = take
    client = await bench.peer()
    running = asyncio.create_task(ask(client, request(it="inode://4/12345"), timeout=30))
    await started.wait()
    client.transceiver.abort()
    error = await asyncio.wait_for(failed, 5)
    assert isinstance(error, asyncio.CancelledError) or (
        isinstance(error, NsmError) and error.code is Code.UNAVAILABLE
    )
    with pytest.raises(grpc.RpcError):
        await running


async def test_over_tcp_there_are_none(bench: Bench) -> None:
    bench.on_request = take_all
    client = await bench.peer(1)
    with pytest.raises(grpc.RpcError, match="no descriptors here") as caught:
        await ask(client, request(it="inode://4/12345"), timeout=20)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    async def send(message: NetworkServiceRequest, call: Call) -> Connection:
        call.send_fd(0)
        return message.connection

    bench.on_request = send
    channel = bench.channel(bench.urls[1])
    with pytest.raises(NsmError, match="no descriptors here"):
        await channel.unary(REQUEST, request(), timeout=5)
    with pytest.raises(NsmError, match="no descriptors here"):
        await channel.unary(REQUEST, request(), timeout=5, fds=[0])
    with pytest.raises(NsmError, match="no descriptors here"):
        await channel.receive_fd("inode://4/1", 5)


@pytest.mark.parametrize("url", ["", "inode://", "inode://a/b", "file:///x", "inode://1/2/3", "inode://-1/2"])
async def test_what_is_no_inode_is_an_invalid_argument(bench: Bench, url: str) -> None:
    bench.on_request = take_all
    client = await bench.peer()
    with pytest.raises(grpc.RpcError) as caught:
        await ask(client, request(it=url))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_namespace_is_received_and_can_be_opened_again(bench: Bench) -> None:
    """Received ones are O_PATH: only their name under /proc gives one that setns takes."""

    async def reopen(message: NetworkServiceRequest, call: Call) -> Connection:
        fd = await call.receive_fd(message.connection.labels["netns"])
        try:
            with open(f"/proc/self/fd/{fd}", "rb") as again:  # noqa: PTH123, ASYNC230
                assert key_of(again.fileno()) == key_of(fd)
        finally:
            os.close(fd)
        return message.connection

    bench.on_request = reopen
    client = await bench.peer()
    url = client.transceiver.queue_file("/proc/self/ns/net")
    assert (await ask(client, request(netns=url))).id == "one"


@pytest.mark.parametrize("count", [1, 64, 65, 300])
async def test_ours_leave_before_or_with_the_request(bench: Bench, count: int) -> None:
    files = make_files(bench.directory, count)
    held: list[int] = []

    def receive(data: bytes, transceiver: Transceiver, _: Any) -> bytes:
        held.append(len(transceiver.received))  # at once: nothing is awaited
        return REQUEST.encode_response(REQUEST.decode_request(data).connection)

    go = await bench.peer_server({REQUEST.path: receive})
    channel = bench.channel(go.url)
    fds = [os.open(file, os.O_RDONLY) for file in files]
    await channel.unary(REQUEST, request(), timeout=10, fds=fds)
    for fd in fds:
        os.close(fd)  # still ours: dups have left
    assert held == [count]
    assert set(go.transceivers[0].received) == {key_of_path(file) for file in files}
    remove_files(files)


@pytest.mark.parametrize("count", [1, 70, 300])
async def test_the_servers_leave_with_the_answer(bench: Bench, count: int) -> None:
    files = make_files(bench.directory, count)

    async def send(message: NetworkServiceRequest, call: Call) -> Connection:
        labels = {}
        for file in files:
            with file.open() as opened:
                labels[file.name] = call.send_fd(opened.fileno())
        return replace(message.connection, labels=labels)

    bench.on_request = send
    client = await bench.peer()
    answer = await ask(client, request())
    for name, url in answer.labels.items():
        fd = client.transceiver.wait_fd(url)
        assert Path(f"/proc/self/fd/{fd}").read_text() == name
        os.close(fd)
    assert len(answer.labels) == count
    remove_files(files)


async def test_those_that_a_go_server_sends_back_are_received(bench: Bench) -> None:
    files = make_files(bench.directory, 64)

    def send(data: bytes, transceiver: Transceiver, _: Any) -> bytes:
        connection = REQUEST.decode_request(data).connection
        labels = {file.name: transceiver.queue_file(str(file)) for file in files}
        return REQUEST.encode_response(replace(connection, labels=labels))

    go = await bench.peer_server({REQUEST.path: send})
    channel = bench.channel(go.url)
    reply = await channel.unary(REQUEST, request(), timeout=10)
    for name, url in reply.value.labels.items():
        fd = await channel.receive_fd(url, 5)
        assert Path(f"/proc/self/fd/{fd}").read_text() == name
        os.close(fd)
    with pytest.raises(NsmError, match="inode://4/12345") as caught:
        await channel.receive_fd("inode://4/12345", 0.05)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    remove_files(files)


async def test_many_calls_with_descriptors_at_once(bench: Bench) -> None:
    bench.on_request = take_all
    files = make_files(bench.directory, 300)
    channel = bench.channel()

    async def one(at: int) -> None:
        mine = files[3 * at : 3 * at + 3]
        fds = [os.open(file, os.O_RDONLY) for file in mine]
        try:
            labels = {file.name: inode_url(key_of(fd)) for file, fd in zip(mine, fds, strict=True)}
            reply = await channel.unary(REQUEST, request(**labels), timeout=20, fds=fds)
            assert dict(reply.value.labels) == {file.name: file.name for file in mine}
        finally:
            for fd in fds:
                os.close(fd)

    await asyncio.gather(*(one(at) for at in range(100)))
    remove_files(files)


async def test_one_that_nobody_asks_for_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "KEEP", 0.0)
    before = open_fds()
    received = Received()
    received.add([os.open("/dev/null", os.O_RDONLY)])
    assert len(received) == 1
    swept = received._sweeper
    assert swept is not None
    await asyncio.sleep(0)  # its timer is due already
    await asyncio.sleep(0)
    assert len(received) == 0
    assert open_fds() == before


async def test_one_goes_with_the_last_of_the_calls_that_brought_it(tmp_path: Path) -> None:
    before = open_fds()
    received = Received()
    path = tmp_path / "shared"
    path.touch()
    for _ in range(2):
        received.add([os.open(path, os.O_RDONLY)])
    key = key_of_path(path)
    os.close(await received.take(key, 1))
    received.release(key)
    assert len(received) == 1, "the other call may not have asked yet"
    received.release(key)
    assert len(received) == 0
    received.release(key)
    assert open_fds() == before
    received.close()


async def test_the_copy_of_a_call_that_never_came_grows_old_beside_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gives up between its descriptor's bytes and its headers leaves a copy that no call releases.

    Refreshes of the same workload bring, take and release copies of their own meanwhile.
    """
    before = open_fds()
    now = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    received = Received()
    path = tmp_path / "shared"
    path.touch()
    key = key_of_path(path)
    received.add([os.open(path, os.O_RDONLY)])
    for _ in range(3):
        received.add([os.open(path, os.O_RDONLY)])
        os.close(await received.take(key, 1))
        received.release(key)
        now += descriptors.KEEP / 4
        received._sweep()
        assert len(received) == 1, "its call may still come"
    received.add([os.open(path, os.O_RDONLY)])
    now += descriptors.KEEP / 4
    received._sweep()
    assert len(received) == 1, "a younger copy is held for its own call"
    received.release(key)
    assert len(received) == 0
    assert open_fds() == before
    received.close()


async def test_one_that_came_back_is_gone_once_it_is_taken_or_let_go_of(bench: Bench) -> None:
    files = make_files(bench.directory, 2)

    async def give(message: NetworkServiceRequest, call: Call) -> Connection:
        found = {}
        for file in files:
            with file.open() as opened:
                found[file.name] = call.send_fd(opened.fileno())
        return replace(message.connection, labels=found)

    bench.on_request = give
    channel = bench.channel()
    reply = await channel.unary(REQUEST, request(), timeout=10)
    received = channel._link.pump.wire.received  # type: ignore[union-attr]
    assert len(received) == 2
    os.close(await channel.receive_fd(reply.value.labels["0"], 5))
    channel.release_fd(reply.value.labels["1"])
    assert len(received) == 0
    remove_files(files)


async def test_a_peer_cannot_park_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "MAX_HELD", 3)
    before = open_fds()
    received = Received()
    for at in range(6):
        received.add([os.open(tmp_path / str(at), os.O_CREAT | os.O_RDONLY)])
    assert len(received) == 3
    received.close()
    assert open_fds() == before


async def test_a_waiter_that_gives_up_in_the_turn_of_the_arrival_leaks_nothing() -> None:
    before = open_fds()
    received = Received()
    fd = os.open("/dev/null", os.O_RDONLY)
    waiting = asyncio.create_task(received.take(key_of(fd), 10))
    await asyncio.sleep(0)
    received.add([fd])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    received.close()
    assert open_fds() == before
    with pytest.raises(NsmError, match="closed"):
        await received.take((1, 2), 10)


def test_inode_urls_are_decimal() -> None:
    assert parse_inode("inode://4/4026532177") == (4, 4026532177)
    assert inode_url((4, 4026532177)) == "inode://4/4026532177"
