"""Who is let in: SPIFFE verification per trust domain, both directions; reasons reach the caller."""

# ruff: noqa: ASYNC240 - small files of /proc and of a temporary directory

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog.testing

from nsm.identity.tokens import PathTokens
from nsm.model.connection import (
    Connection,
    ConnectionEvent,
    MonitorScopeSelector,
    NetworkServiceRequest,
)
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Svid
from nsm.transport.call import Call
from nsm.transport.channel import Channels
from nsm.transport.link import Link, dial
from nsm.transport.server import Server
from nsm.transport.tls import verified_chain
from nsm.wire import methods
from tests.fakes.fd_peer import Papers, Transceiver, connect
from tests.fakes.identity import FakeAuthority, FakeIdentity
from tests.unit.nsm.transport.bench import REQUEST, Bench, ask, papers, request

OTHER = FakeAuthority("other.org")


def forged(authority: FakeAuthority, signer: FakeAuthority, path: str) -> FakeIdentity:
    """``spiffe://<domain of authority>/path`` signed by ``signer``; trusts both."""
    identity = authority.identity(path, federated=[signer])
    svid = signer.svid(path, uris=[f"spiffe://{authority.trust_domain}{path}"])
    identity.publish(replace(identity.current, svid=replace(svid, spiffe_id=identity.spiffe_id)))
    return identity


async def refused(bench: Bench, identity: FakeIdentity, url: str = "") -> str:
    """Why the call of that identity failed; it must fail as UNAVAILABLE."""
    with pytest.raises(NsmError) as caught:
        await bench.channel(url, identity=identity).unary(REQUEST, request(), timeout=5)
    assert caught.value.code is Code.UNAVAILABLE
    return str(caught.value)


async def test_a_federated_peer_is_let_in(bench: Bench) -> None:
    bench.identity.trust(bench.authority, OTHER)
    own = OTHER.identity("/client/c", federated=[bench.authority])
    reply = await bench.channel(identity=own).unary(REQUEST, request(), timeout=5)
    assert reply.value.labels["peer"] == "spiffe://other.org/client/c"


async def broken(stream: AsyncGenerator[ConnectionEvent, None]) -> str:
    """Why a stream that had nothing more to say ended."""
    async with asyncio.timeout(10):
        with pytest.raises(NsmError) as caught:
            await anext(stream)
    assert caught.value.code is Code.UNAVAILABLE
    return str(caught.value)


LASTING = MonitorScopeSelector(network_services=("a", "for ever"))


async def test_a_server_ends_the_calls_of_a_domain_that_is_federated_no_longer(bench: Bench) -> None:
    bench.identity.trust(bench.authority, OTHER)
    own = OTHER.identity("/client/c", federated=[bench.authority])
    channel, kept = bench.channel(identity=own), bench.channel()
    streams = [one.stream(methods.MONITOR_CONNECTIONS, LASTING) for one in (channel, kept)]
    for stream in streams:
        assert list((await anext(stream)).connections) == ["a"]
    with structlog.testing.capture_logs() as logs:
        bench.identity.trust(bench.authority)
        await broken(streams[0])
    assert [one["refusal"] for one in logs if one["event"] == "audit"] == [
        "spiffe://other.org/client/c: its trust domain is trusted no longer"
    ]
    await refused(bench, own)
    assert (await kept.unary(REQUEST, request(), timeout=5)).value.id == "one"
    await streams[1].aclose()


async def test_a_client_ends_its_calls_into_a_domain_that_is_federated_no_longer(bench: Bench) -> None:
    bench.identity.trust(bench.authority, OTHER)
    own = OTHER.identity("/client/c", federated=[bench.authority])
    channels = Channels(own, PathTokens(own, max_lifetime=600))
    stream = channels.get(bench.urls[0]).stream(methods.MONITOR_CONNECTIONS, LASTING)
    assert list((await anext(stream)).connections) == ["a"]
    own.trust(OTHER)
    assert "spiffe://example.org/server/s: its trust domain is trusted no longer" in await broken(stream)
    with pytest.raises(NsmError, match="certificate was refused"):
        await channels.get(bench.urls[0]).unary(REQUEST, request(), timeout=5)
    await channels.close()


async def test_a_ca_that_is_replaced_ends_no_call(bench: Bench) -> None:
    new = FakeAuthority(bench.authority.trust_domain)
    channel = bench.channel()
    stream = channel.stream(methods.MONITOR_CONNECTIONS, LASTING)
    assert list((await anext(stream)).connections) == ["a"]
    peer = await channel.peer()
    bench.identity.trust(new)
    assert (await channel.unary(REQUEST, request(), timeout=5)).peer is peer
    await stream.aclose()


async def test_a_federated_authority_cannot_sign_for_our_domain(bench: Bench) -> None:
    bench.identity.trust(bench.authority, OTHER)
    with structlog.testing.capture_logs() as logs:
        reason = await refused(bench, forged(bench.authority, OTHER, "/admin"))
    assert reason
    audits = [entry for entry in logs if entry["event"] == "audit"]
    assert len(audits) == 1
    assert "spiffe://example.org/admin" in audits[0]["refusal"]


async def test_nor_can_ours_sign_for_the_federated_domain(bench: Bench) -> None:
    bench.identity.trust(bench.authority, OTHER)
    identity = forged(OTHER, bench.authority, "/admin")
    with structlog.testing.capture_logs() as logs:
        await refused(bench, identity)
    assert [entry["action"] for entry in logs if entry["event"] == "audit"] == ["transport"]


async def test_a_client_is_not_fooled_by_a_cross_domain_server(bench: Bench) -> None:
    go = await bench.peer_server({}, own=papers(forged(bench.authority, OTHER, "/server/go")))
    own = bench.authority.identity("/client/c", federated=[OTHER])
    assert "does not end at a CA of its own trust domain" in await refused(bench, own, go.url)


async def test_an_unknown_authority_of_the_same_name_is_refused_by_the_server(bench: Bench) -> None:
    rogue = FakeAuthority("example.org")
    own = rogue.identity("/client/c")
    own.publish(replace(own.current, bundles={"example.org": bench.authority.bundle}))
    with structlog.testing.capture_logs() as logs:
        reason = await refused(bench, own)
    assert "the peer refused us" in reason
    assert "certificate was refused" in next(one["refusal"] for one in logs if one["event"] == "audit")


async def test_an_unknown_authority_is_refused_by_the_client(bench: Bench) -> None:
    own = FakeAuthority("example.org").identity("/client/c")
    assert "the peer's certificate was refused" in await refused(bench, own)


BAD: dict[str, Callable[[FakeAuthority], Svid]] = {
    "expired": lambda ca: ca.svid("/c", ttl=-10),
    "two names": lambda ca: ca.svid("/c", uris=["spiffe://example.org/a", "spiffe://example.org/b"]),
    "no name": lambda ca: ca.svid("/c", uris=[]),
    "no spiffe name": lambda ca: ca.svid("/c", uris=["https://example.org/a"]),
    "a CA": lambda ca: ca.svid("/c", is_ca=True, cert_sign=True),
    "of an unknown domain": lambda ca: ca.svid("/c", uris=["spiffe://elsewhere.org/a"]),
}


@pytest.mark.parametrize("kind", BAD)
async def test_an_invalid_svid_is_refused_by_both(bench: Bench, kind: str) -> None:
    svid = BAD[kind](bench.authority)
    own = bench.authority.identity("/client/c")
    own.publish(replace(own.current, svid=svid))
    with structlog.testing.capture_logs() as logs:
        await refused(bench, own)
    assert len([one for one in logs if one["event"] == "audit"]) == 1
    go = await bench.peer_server({}, own=papers(own))
    assert await refused(bench, bench.authority.identity("/client/d"), go.url)


def _use(sock: socket.socket, own: Papers) -> None:
    """In TLS 1.3 the refusal comes with the first read."""
    transceiver = Transceiver(sock, own.context(is_server=False), is_server=False)
    while True:
        transceiver._read()
        transceiver._decrypted()


async def test_no_certificate_is_refused(bench: Bench) -> None:
    nobody = Papers((), b"", bench.authority.bundle)
    with structlog.testing.capture_logs() as logs:
        sock = await asyncio.to_thread(connect, bench.urls[0])
        with pytest.raises(OSError, match=r"(?i)certificate|ended|reset"):
            await asyncio.to_thread(_use, sock, nobody)
        sock.close()
    assert [one["event"] for one in logs] == ["audit"]


async def test_alpn_is_required_of_a_server(bench: Bench) -> None:
    go = await bench.peer_server({}, alpn=())
    assert "ALPN h2" in await refused(bench, bench.authority.identity("/client/c"), go.url)


async def test_alpn_is_required_of_a_client(bench: Bench) -> None:
    context = papers(bench.authority.identity("/client/go")).context(is_server=False, alpn=())
    sock = await asyncio.to_thread(connect, bench.urls[0])
    with structlog.testing.capture_logs() as logs:
        transceiver = await asyncio.to_thread(Transceiver, sock, context, is_server=False)
        with pytest.raises(OSError, match="ended"):
            await asyncio.to_thread(transceiver._read)
    transceiver.close()
    assert "ALPN h2" in next(one["refusal"] for one in logs if one["event"] == "audit")


async def test_tls_1_2_is_spoken(bench: Bench) -> None:
    client = await bench.peer(is_tls12=True)
    assert (await ask(client, request())).labels["peer"] == "spiffe://example.org/client/go"


async def test_plaintext_is_refused(bench: Bench) -> None:
    async with grpc.aio.insecure_channel(bench.urls[0].replace("unix://", "unix:")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(REQUEST.path)(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_on_the_private_socket_is_refused(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        async with grpc.aio.insecure_channel(f"unix:{bench.server._private}") as channel:
            for path in (REQUEST.path, "/grpc.health.v1.Health/Check"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(path)(b"", timeout=5)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(logs) == 2


async def test_private_sockets_leave_no_name_in_the_file_system(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    private = tmp_path_factory.mktemp("private")
    monkeypatch.setattr("tempfile.tempdir", str(private))
    server = Server(bench.identity)
    (url,) = await server.start([f"unix://{bench.directory}/p.sock"])
    channel = bench.channel(url)
    await channel.peer()
    assert str(private) in Path("/proc/net/unix").read_text()  # they were made there
    assert list(private.iterdir()) == []
    await channel.close()
    await server.stop(0)


async def test_nobody_there_says_so(bench: Bench) -> None:
    own = bench.authority.identity("/client/c")
    assert "No such file or directory" in await refused(bench, own, f"unix://{bench.directory}/nobody.sock")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "Connection refused" in await refused(bench, own, f"tcp://127.0.0.1:{unused.getsockname()[1]}")


async def test_one_that_never_answers_is_given_up(bench: Bench) -> None:
    path = str(bench.directory / "silent.sock")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen(1)
        channel = bench.channel(f"unix://{path}", dial_timeout=0.1)
        with pytest.raises(NsmError, match=r"no answer within 0\.1 s") as caught:
            await channel.peer()
        assert caught.value.code is Code.UNAVAILABLE
    Path(path).unlink()


async def test_one_that_hangs_up_says_so(bench: Bench) -> None:
    path = str(bench.directory / "rude.sock")
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(path)
        rude.listen(1)
        asking = asyncio.create_task(bench.channel(f"unix://{path}").peer())
        accepted, _ = await asyncio.to_thread(rude.accept)
        accepted.close()
        with pytest.raises(NsmError, match="TLS handshake") as caught:
            await asking
        assert caught.value.code is Code.UNAVAILABLE
    Path(path).unlink()


class Refuser:
    """Ends each connection without an alert, once it has seen the first bytes after the handshake."""

    def __init__(self, path: Path, own: Papers) -> None:
        self.connections = 0
        self._context = own.context(is_server=True)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(8)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                accepted, _ = self._sock.accept()
                self.connections += 1
                transceiver = Transceiver(accepted, self._context, is_server=True)
                while not transceiver._decrypted():
                    transceiver._read()
                accepted.close()

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join()


async def test_a_refusal_after_the_handshake_is_one_however_silent(bench: Bench) -> None:
    path = bench.directory / "refuser.sock"
    refuser = Refuser(path, papers(bench.authority.identity("/server/go")))
    try:
        reason = await refused(bench, bench.authority.identity("/client/c"), f"unix://{path}")
    finally:
        refuser.close()
        path.unlink()
    assert "refused us" in reason
    assert refuser.connections == 1


@pytest.mark.parametrize("kind", ["unary", "stream", "peer"])
async def test_a_connection_that_ends_right_after_the_dial_is_dialled_once(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dials: list[str] = []

    async def unlucky(*to: Any) -> Link:
        dials.append(to[0])
        link = await dial(*to)
        link.pump.close("cut")
        await asyncio.wait({link._closed})
        return link

    monkeypatch.setattr("nsm.transport.channel.dial", unlucky)
    channel = bench.channel()
    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "unary": lambda: channel.unary(REQUEST, request(), timeout=5),
        "stream": lambda: anext(channel.stream(methods.MONITOR_CONNECTIONS, LASTING)),
        "peer": channel.peer,
    }
    with pytest.raises(NsmError, match="cut") as caught:
        await ways[kind]()
    assert caught.value.code is Code.UNAVAILABLE
    assert len(dials) == 1


async def test_rotation_drops_no_connection_and_new_calls_use_the_new_svid(bench: Bench) -> None:
    own = bench.authority.identity("/client/c")
    channel = bench.channel(identity=own)
    started, go = asyncio.Event(), asyncio.Event()
    leaves: dict[str, bytes] = {}

    async def slow(message: NetworkServiceRequest, call: Call) -> Connection:
        leaves[message.connection.id] = call.peer.leaf
        if message.connection.id == "slow":
            started.set()
            await go.wait()
        return message.connection

    bench.on_request = slow
    old = own.leaf
    running = asyncio.create_task(channel.unary(REQUEST, request("slow"), timeout=10))
    await started.wait()
    own.rotate()
    bench.identity.rotate()
    reply = await channel.unary(REQUEST, request("new"), timeout=5)
    assert reply.peer.leaf == bench.identity.leaf
    go.set()
    assert (await running).value.id == "slow"
    assert leaves == {"slow": old, "new": own.leaf}


async def test_the_token_is_signed_with_the_key_of_its_connection_through_rotations(bench: Bench) -> None:
    from nsm.identity.tokens import PathTokenVerifier

    own = bench.authority.identity("/client/c")
    verifier = PathTokenVerifier()

    async def check(message: NetworkServiceRequest, call: Call) -> Connection:
        token = dict(call.metadata)["nsm-client-token"]
        assert verifier.signed_by(token, call.peer.leaf)
        claims = verifier.claims(token)
        assert claims is not None
        assert claims.aud == ("spiffe://example.org/server/s",)
        return message.connection

    bench.on_request = check
    channel = bench.channel(identity=own)
    for _ in range(8):
        calls = [asyncio.create_task(channel.unary(REQUEST, request(), timeout=10)) for _ in range(5)]
        await asyncio.sleep(0)
        own.rotate()
        await asyncio.gather(*calls)


async def test_once_half_of_the_servers_certificate_is_over_the_next_call_dials_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = bench.channel()
    first = await channel.peer()
    bench.identity.rotate()
    half = (first.not_after - time.time()) / 2
    now = time.time
    monkeypatch.setattr("nsm.transport.link.time.time", lambda: now() + half - 10)
    assert (await channel.peer()) is first
    monkeypatch.setattr("nsm.transport.link.time.time", lambda: now() + half + 10)
    assert (await channel.peer()).leaf == bench.identity.leaf
    second = await channel.peer()
    assert (await channel.peer()) is second, "not at every call"


async def test_a_call_knows_which_svid_it_came_to(bench: Bench) -> None:
    shown: list[Svid | None] = []

    async def look(message: NetworkServiceRequest, call: Call) -> Connection:
        shown.append(call.peer.shown)
        return message.connection

    bench.on_request = look
    channel = bench.channel()
    before = bench.identity.current.svid
    await channel.unary(REQUEST, request(), timeout=5)
    bench.identity.rotate()
    peer = (await channel.unary(REQUEST, request(), timeout=5)).peer
    channel.outdate(peer)
    newer = await channel.peer()
    channel.outdate(peer)
    assert await channel.peer() is newer, "that was done already"
    await channel.unary(REQUEST, request(), timeout=5)
    assert shown == [before, before, bench.identity.current.svid]


async def test_a_new_authority_in_three_steps(bench: Bench) -> None:
    own = bench.authority.identity("/client/c")
    channel = bench.channel(identity=own)
    successor = FakeAuthority("example.org")
    for identity in (own, bench.identity):
        identity.trust(bench.authority, successor)
    for identity in (bench.identity, own):
        svid = successor.svid(identity.spiffe_id.removeprefix("spiffe://example.org"))
        identity.publish(replace(identity.current, svid=svid))
        await channel.unary(REQUEST, request(), timeout=5)
    for identity in (own, bench.identity):
        identity.trust(successor)
    await channel.unary(REQUEST, request(), timeout=5)


def test_the_verified_chain_can_be_read_before_python_3_13() -> None:
    """It comes from a private attribute there: a Python without it must fail here, not in production."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")
    assert verified_chain(connection) == []


async def test_an_intermediate_signs_too(bench: Bench) -> None:
    node = FakeAuthority("example.org", issuer=bench.authority)
    reply = await bench.channel(identity=node.identity("/client/c")).unary(REQUEST, request(), timeout=5)
    assert reply.value.labels["peer"] == "spiffe://example.org/client/c"
