"""The SPIFFE source against a Workload API that rotates, sends rubbish, refuses and restarts."""

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from spiffe._proto import workload_pb2
from structlog.testing import capture_logs

from nsm.identity.source import SpiffeSource, material_of
from nsm.model.errors import Code, NsmError
from nsm.model.identity import Material
from tests.fakes.identity import FakeAuthority, FakeIdentity
from tests.fakes.workload_api import FakeWorkloadApi, response_of

AUTHORITY = FakeAuthority()
OTHER = FakeAuthority("other.org")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nsm-src-") as path:
        yield Path(path)


@pytest.fixture
async def api(directory: Path) -> AsyncIterator[FakeWorkloadApi]:
    api = FakeWorkloadApi(f"unix:{directory}/api.sock")
    await api.start()
    yield api
    await api.stop()


def endpoint(api: FakeWorkloadApi) -> str:
    return "unix://" + api.address.removeprefix("unix:")


async def connected(
    api: FakeWorkloadApi, identity: FakeIdentity
) -> tuple[SpiffeSource, asyncio.Queue[Material]]:
    api.push(identity.current)
    async with asyncio.timeout(20):
        source = await SpiffeSource.connect(endpoint(api))
    updates: asyncio.Queue[Material] = asyncio.Queue()
    source.subscribe(updates.put_nowait)
    return source, updates


async def update(updates: asyncio.Queue[Material]) -> Material:
    async with asyncio.timeout(20):
        return await updates.get()


async def test_the_first_svid_and_all_bundles_are_there_after_connect(api: FakeWorkloadApi) -> None:
    identity = AUTHORITY.identity("client/nsc-1", federated=[OTHER])
    source, _ = await connected(api, identity)
    assert source.current == identity.current
    assert source.verify_anchor([identity.leaf, AUTHORITY.certificate]) == "spiffe://example.org/client/nsc-1"
    await source.close()


async def test_connect_waits_for_the_socket_to_appear(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()
    monkeypatch.setattr(SpiffeSource, "_complain", lambda _self, _reason: waiting.set())
    api = FakeWorkloadApi(f"unix:{directory}/late.sock")
    connecting = asyncio.create_task(SpiffeSource.connect(endpoint(api)))
    await waiting.wait()
    await api.start()
    api.push(AUTHORITY.identity("client/late").current)
    async with asyncio.timeout(20):
        source = await connecting
    assert source.current.svid.spiffe_id == "spiffe://example.org/client/late"
    await source.close()
    await api.stop()


async def test_a_connect_that_is_given_up_leaves_no_task(directory: Path) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await SpiffeSource.connect(f"unix://{directory}/never.sock")
    assert asyncio.all_tasks() == before


async def test_rotation_reaches_subscribers_on_the_loop_until_they_leave(api: FakeWorkloadApi) -> None:
    identity = AUTHORITY.identity("client/nsc-1")
    source, updates = await connected(api, identity)
    threads: list[int] = []
    leave = source.subscribe(lambda _: threads.append(threading.get_ident()))
    api.push(identity.rotate())
    assert await update(updates) == identity.current == source.current
    assert threads == [threading.get_ident()]
    leave()
    api.push(identity.rotate())
    await update(updates)
    assert len(threads) == 1
    await source.close()


async def test_a_subscriber_that_fails_harms_neither_the_others_nor_the_stream(api: FakeWorkloadApi) -> None:
    identity = AUTHORITY.identity("client/nsc-1")
    api.push(identity.current)
    source = await SpiffeSource.connect(endpoint(api))

    def fail(_: Material) -> None:
        raise ValueError("no")

    source.subscribe(fail)
    updates: asyncio.Queue[Material] = asyncio.Queue()
    source.subscribe(updates.put_nowait)
    for _ in range(2):
        api.push(identity.rotate())
        assert await update(updates) == identity.current
    await source.close()


@pytest.mark.parametrize("rubbish", [b"\xff\xff\xff", b"", response_of(AUTHORITY.identity("a").current)])
async def test_a_malformed_update_keeps_the_last_material_and_the_next_good_one_arrives(
    api: FakeWorkloadApi, rubbish: bytes | workload_pb2.X509SVIDResponse
) -> None:
    identity = AUTHORITY.identity("client/nsc-1")
    source, updates = await connected(api, identity)
    before = source.current
    if isinstance(rubbish, workload_pb2.X509SVIDResponse):
        rubbish.svids[0].x509_svid_key = rubbish.svids[0].x509_svid_key[:-9]
        rubbish = rubbish.SerializeToString()
    api.push_once(rubbish)
    await api.streamed(2)
    assert source.current == before
    assert updates.empty()
    api.push(identity.rotate())
    assert await update(updates) == identity.current
    await source.close()


@pytest.mark.parametrize(
    "code",
    [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED],
)
async def test_whatever_ends_the_stream_it_is_opened_again(
    api: FakeWorkloadApi, code: grpc.StatusCode
) -> None:
    identity = AUTHORITY.identity("client/nsc-1")
    source, updates = await connected(api, identity)
    api.refuse(code)
    await api.streamed(2)
    api.push(identity.rotate())
    assert await update(updates) == identity.current
    await source.close()


async def test_an_agent_that_restarts_is_found_again(api: FakeWorkloadApi) -> None:
    identity = AUTHORITY.identity("client/nsc-1")
    source, updates = await connected(api, identity)
    before = source.current
    await api.stop()
    assert source.current == before
    api.push(identity.rotate())
    await api.start()
    assert await update(updates) == identity.current
    await source.close()


async def test_a_federation_that_is_withdrawn_no_longer_verifies(api: FakeWorkloadApi) -> None:
    identity = AUTHORITY.identity("client/nsc-1", federated=[OTHER])
    peer = OTHER.identity("client/x")
    source, updates = await connected(api, identity)
    assert source.verify_anchor([peer.leaf, OTHER.certificate]) == "spiffe://other.org/client/x"
    api.push(identity.trust(AUTHORITY))
    await update(updates)
    with pytest.raises(NsmError, match=r"no bundle for its trust domain 'other\.org'"):
        source.verify_anchor([peer.leaf, OTHER.certificate])
    await source.close()


async def test_a_workload_api_on_tcp_is_reached_too() -> None:
    api = FakeWorkloadApi("127.0.0.1:0")
    await api.start()
    api.push(AUTHORITY.identity("client/nsc-1").current)
    async with asyncio.timeout(20):
        source = await SpiffeSource.connect(f"tcp://127.0.0.1:{api.port}")
    assert source.current.svid.spiffe_id == "spiffe://example.org/client/nsc-1"
    await source.close()
    await api.stop()


@pytest.mark.parametrize("text", ["", "unix://", "http://x:1", "/run/api.sock", "tcp://host"])
async def test_an_endpoint_that_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(NsmError, match="SPIFFE_ENDPOINT_SOCKET: expected unix:///path or tcp://ip:port"):
        await SpiffeSource.connect(text)


async def test_no_key_and_no_certificate_is_logged_or_shown(api: FakeWorkloadApi) -> None:
    identity = AUTHORITY.identity("client/nsc-1")
    with capture_logs() as logs:
        source, updates = await connected(api, identity)
        api.push(identity.rotate())
        await update(updates)
    shown = repr(logs) + repr(source.current) + str(source.current.svid)
    assert "spiffe://example.org/client/nsc-1" in shown
    assert "\\x" not in shown
    await source.close()


def test_an_update_of_an_rsa_svid_is_refused_because_it_cannot_sign_tokens() -> None:
    svid = AUTHORITY.svid("client/rsa", is_rsa=True)
    with pytest.raises(NsmError, match="expected an EC P-256 key"):
        material_of(response_of(Material(svid, {"example.org": AUTHORITY.bundle})))


def test_an_update_whose_key_is_of_another_certificate_is_refused() -> None:
    response = response_of(AUTHORITY.identity("a").current)
    response.svids[0].x509_svid_key = AUTHORITY.svid("b").key
    with pytest.raises(NsmError, match="the key of the certificate") as caught:
        material_of(response)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_two_svids_of_one_trust_domain_have_one_bundle_of_all_their_authorities() -> None:
    response = response_of(AUTHORITY.identity("a").current)
    second = FakeAuthority()
    response.svids.extend(response_of(second.identity("b").current).svids)
    material = material_of(response)
    assert material.svid.spiffe_id == "spiffe://example.org/a"
    assert set(material.bundles["example.org"]) == {AUTHORITY.certificate, second.certificate}
