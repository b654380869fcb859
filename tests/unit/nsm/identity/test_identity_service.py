"""The embedded service, asked by the same source that daemons use, over real sockets."""

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from spiffe._proto import workload_pb2

from nsm.identity import service as service_module
from nsm.identity.authority import create_authority, load_authority, save_authority
from nsm.identity.doors import _identify
from nsm.identity.errors import IdentityError
from nsm.identity.registration import Entry
from nsm.identity.replacement import replace_root
from nsm.identity.service import IdentityService, Places
from nsm.identity.source import FETCH_SVID, HEADER, SpiffeSource
from nsm.identity.svid import verify_anchor
from nsm.identity.watch import Watcher
from nsm.model.identity import Material, Svid

FETCH_BUNDLES = "/SpiffeWorkloadAPI/FetchX509Bundles"
DOMAIN = "example.org"


class Host:
    """The files of one host and the service over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sockets = root / "s"
        self.places = Places(root / "identities.yaml", root / "authority.pem", self.sockets)
        save_authority(self.places.authority, create_authority(DOMAIN))
        self.register("client/nsc-1")

    def register(self, *ids: str, **others: Any) -> None:
        entries: list[Mapping[str, Any]] = [{"spiffe_id": f"spiffe://{DOMAIN}/{one}"} for one in ids]
        self.write({"entries": entries, **others})

    def write(self, content: object) -> None:
        new = self.places.registration.with_suffix(".new")
        new.write_text(yaml.safe_dump(content))
        new.replace(self.places.registration)

    def endpoint(self, name: str = "nsc-1") -> str:
        return f"unix://{self.sockets}/{name}.sock"


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="nsm-id-") as path:
        yield Host(Path(path))


@pytest.fixture
async def running(host: Host) -> AsyncIterator[IdentityService]:
    service = IdentityService(host.places)
    await service.start()
    yield service
    await service.stop()


async def connect(host: Host, name: str = "nsc-1") -> tuple[SpiffeSource, asyncio.Queue[Material]]:
    async with asyncio.timeout(20):
        source = await SpiffeSource.connect(host.endpoint(name))
    updates: asyncio.Queue[Material] = asyncio.Queue()
    source.subscribe(updates.put_nowait)
    return source, updates


async def update(updates: asyncio.Queue[Material]) -> Material:
    async with asyncio.timeout(20):
        return await updates.get()


async def gone(path: Path) -> None:
    """Until ``path`` no longer exists."""
    changed = asyncio.Event()
    watcher = Watcher(changed.set)
    watcher.watch([path])
    async with asyncio.timeout(20):
        while os.path.lexists(path):  # noqa: ASYNC240 - an instant, in a test
            changed.clear()
            await changed.wait()
    watcher.close()


async def fetch(
    host: Host, method: str, request: bytes = b"", metadata: Any = HEADER, name: str = "nsc-1"
) -> bytes:
    """The first raw answer of a streaming call."""
    path = host.endpoint(name).removeprefix("unix://")
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel, asyncio.timeout(20):
        call = channel.unary_stream(method)(request, metadata=metadata)
        answer = await call.read()
        if answer is grpc.aio.EOF:
            await call.wait_for_connection()
            raise AssertionError(await call.code())
        return bytes(answer)


async def test_a_registered_identity_gets_an_svid_that_its_bundle_verifies(
    host: Host, running: IdentityService
) -> None:
    source, _ = await connect(host)
    svid = source.current.svid
    assert svid.spiffe_id == f"spiffe://{DOMAIN}/client/nsc-1"
    assert source.verify_anchor([*svid.chain, *source.current.bundles[DOMAIN]]) == svid.spiffe_id
    assert abs(svid.not_after - time.time() - 3600) < 60
    await source.close()


async def test_sockets_and_directories_are_private_and_nothing_is_left_after_stop(host: Host) -> None:
    before = sorted(host.root.rglob("*"))
    service = IdentityService(host.places)
    await service.start()
    made = [path for path in host.root.rglob("*") if path not in before]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made}
    assert modes[host.sockets] == 0o700
    assert modes[host.sockets / "nsc-1.sock"] == 0o600
    assert all(mode & 0o077 == 0 for path, mode in modes.items() if path.is_dir())
    await service.stop()
    host.sockets.rmdir()
    assert sorted(host.root.rglob("*")) == before


async def test_the_svid_is_replaced_before_it_expires_on_the_open_stream(host: Host) -> None:
    service = IdentityService(host.places, svid_ttl=4)
    await service.start()
    source, updates = await connect(host)
    first = source.current.svid
    for _ in range(2):
        second = (await update(updates)).svid
        assert second.key != first.key
        assert second.chain != first.chain
        assert time.time() < first.not_after
        first = second
    await source.close()
    await service.stop()


async def test_an_identity_can_be_added_to_and_taken_from_a_running_service(
    host: Host, running: IdentityService
) -> None:
    host.register("client/nsc-1", "endpoint/nse-1")
    source, _ = await connect(host, "nse-1")
    assert source.current.svid.spiffe_id == f"spiffe://{DOMAIN}/endpoint/nse-1"
    await source.close()
    host.register("client/nsc-1")
    await gone(host.sockets / "nse-1.sock")
    assert [entry.spiffe_id for entry in running.entries] == [f"spiffe://{DOMAIN}/client/nsc-1"]


async def test_a_registration_file_that_cannot_be_read_changes_nothing(
    host: Host, running: IdentityService, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()
    monkeypatch.setattr(service_module._log, "error", lambda _event, **_facts: refused.set(), raising=False)
    host.write({"entries": [{"spiffe_id": "spiffe://other.org/x"}, {"uid": -1}], "entrys": []})
    async with asyncio.timeout(20):
        await refused.wait()
    source, _ = await connect(host)
    assert len(running.entries) == 1
    await source.close()


async def test_federated_bundles_come_and_go_with_their_file(host: Host, running: IdentityService) -> None:
    source, updates = await connect(host)
    other = create_authority("other.org")
    file = host.root / "other.pem"
    host.register("client/nsc-1", federation={"other.org": str(file)})
    file.write_bytes(other.bundle_pem())
    assert (await update(updates)).bundles["other.org"] == other.bundle
    answer = workload_pb2.X509BundlesResponse.FromString(await fetch(host, FETCH_BUNDLES))
    assert answer.bundles["spiffe://other.org"] == other.bundle[0]
    assert set(answer.bundles) == {"spiffe://other.org", f"spiffe://{DOMAIN}"}
    file.unlink()
    assert "other.org" not in (await update(updates)).bundles
    await source.close()


async def test_a_new_authority_is_taken_up_with_the_old_one_still_trusted(
    host: Host, running: IdentityService
) -> None:
    source, updates = await connect(host)
    old = load_authority(host.places.authority)
    former, new = host.root / "former.pem", create_authority(DOMAIN)
    former.write_bytes(new.bundle_pem())
    host.register("client/nsc-1", federation={DOMAIN: str(former)})
    assert set((await update(updates)).bundles[DOMAIN]) == {*old.bundle, *new.bundle}
    former.write_bytes(old.bundle_pem() + new.bundle_pem())
    save_authority(host.places.authority, new)
    material = await update(updates)
    assert verify_anchor([*material.svid.chain, *new.bundle], material.bundles) == material.svid.spiffe_id
    assert set(material.bundles[DOMAIN]) == {*old.bundle, *new.bundle}
    leaf = x509.load_der_x509_certificate(material.svid.chain[0])
    leaf.verify_directly_issued_by(new.chain[0])
    await source.close()


async def test_a_root_is_replaced_in_three_steps_on_the_open_stream(
    host: Host, running: IdentityService
) -> None:
    source, updates = await connect(host)
    first = source.current
    prepared = replace_root(host.places.authority, "prepare", ttl=3600, now=time.time())
    material = await update(updates)
    assert material.svid == first.svid, "the old root signs, and nothing is signed anew"
    assert set(material.bundles[DOMAIN]) == set(prepared.bundle)
    activated = replace_root(host.places.authority, "activate", ttl=3600, now=time.time())
    material = await update(updates)
    x509.load_der_x509_certificate(material.svid.chain[0]).verify_directly_issued_by(activated.chain[0])
    assert set(material.bundles[DOMAIN]) == set(prepared.bundle)
    finished = replace_root(host.places.authority, "finish", ttl=3600, now=time.time())
    last = await update(updates)
    assert last.svid == material.svid
    assert last.bundles[DOMAIN] == finished.bundle
    await source.close()


async def test_another_lifetime_holds_at_once(host: Host, running: IdentityService) -> None:
    source, updates = await connect(host)
    first = source.current.svid
    host.register("client/nsc-1", svid_ttl="60s")
    second = (await update(updates)).svid
    assert second.chain != first.chain
    assert second.not_after < first.not_after
    await source.close()


async def test_a_call_without_the_header_is_refused(host: Host, running: IdentityService) -> None:
    for method in (FETCH_SVID, FETCH_BUNDLES):
        with pytest.raises(grpc.aio.AioRpcError, match=r"workload\.spiffe\.io") as caught:
            await fetch(host, method, metadata=())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_not_served_and_what_is_rubbish_have_a_status(
    host: Host, running: IdentityService
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fetch(host, "/SpiffeWorkloadAPI/FetchJWTBundles")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_direct_connection_to_the_private_socket_gets_nothing(
    host: Host, running: IdentityService
) -> None:
    (private,) = host.sockets.glob(".nsm-*/s")
    async with grpc.aio.insecure_channel(f"unix:{private}") as channel:
        call = channel.unary_stream(FETCH_SVID)(b"", metadata=HEADER)
        with pytest.raises(grpc.aio.AioRpcError, match="by an identity's socket") as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def may_give_files_away() -> bool:
    """Root, outside a user namespace that has no other users."""
    lengths = [int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and sum(lengths) > 65534


@pytest.mark.skipif(not may_give_files_away(), reason="only root gives a socket to another user")
@pytest.mark.parametrize("owner", [{"uid": 65534}, {"gid": 65534}])
async def test_a_process_of_another_user_or_group_is_told_that_the_identity_is_not_its_own(
    host: Host, owner: dict[str, int]
) -> None:
    host.write({"entries": [{"spiffe_id": f"spiffe://{DOMAIN}/client/nsc-1", **owner}]})
    service = IdentityService(host.places)
    await service.start()
    assert stat.S_IMODE(host.sockets.stat().st_mode) == 0o711
    with pytest.raises(
        grpc.aio.AioRpcError, match=r"for which spiffe://example\.org/client/nsc-1 is"
    ) as caught:
        await fetch(host, FETCH_SVID)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await service.stop()


def test_the_kernels_word_decides_who_gets_an_identity() -> None:
    ours, theirs = socket.socketpair()
    uid, gid, place = os.geteuid(), os.getegid(), Path("/s")
    with ours, theirs:
        assert _identify(Entry("spiffe://d/x", place, uid), ours).refusal == ""
        assert _identify(Entry("spiffe://d/x", place, uid, gid), ours).refusal == ""
        assert (
            f"uid {uid} is not uid {uid + 1}"
            in _identify(Entry("spiffe://d/x", place, uid + 1), ours).refusal
        )
        assert f"gid {gid} is not gid" in _identify(Entry("spiffe://d/x", place, uid, gid + 1), ours).refusal


async def test_a_second_service_over_the_same_files_is_refused(host: Host, running: IdentityService) -> None:
    with pytest.raises(IdentityError, match="another process serves this socket"):
        await IdentityService(host.places).start()
    source, _ = await connect(host)
    await source.close()


async def test_sockets_left_by_a_killed_service_are_taken_over(host: Host) -> None:
    host.sockets.mkdir(mode=0o700)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(host.sockets / "nsc-1.sock"))
    stale.close()
    service = IdentityService(host.places)
    await service.start()
    source, _ = await connect(host)
    await source.close()
    await service.stop()


async def test_a_directory_that_others_can_write_to_is_refused(host: Host) -> None:
    host.sockets.mkdir()
    host.sockets.chmod(0o777)
    with pytest.raises(IdentityError, match="only its owner"):
        await IdentityService(host.places).start()
    assert list(host.sockets.iterdir()) == []


async def test_a_place_of_a_socket_that_holds_a_file_is_left_alone(host: Host) -> None:
    host.sockets.mkdir(mode=0o700)
    (host.sockets / "nsc-1.sock").write_text("mine")
    with pytest.raises(IdentityError, match="another kind of file"):
        await IdentityService(host.places).start()
    assert [path.name for path in host.sockets.iterdir()] == ["nsc-1.sock"]


async def test_two_hosts_of_one_trust_domain_trust_each_other_in_tls(host: Host) -> None:
    root = load_authority(host.places.authority)
    node = root.sign_node("node-2", 86400, time.time())
    first = root.issue(f"spiffe://{DOMAIN}/client/a", 3600, time.time())
    second = node.issue(f"spiffe://{DOMAIN}/client/b", 3600, time.time())
    assert len(second.chain) == 2
    seen = handshake(first, second, root.bundle)
    assert seen == (second.spiffe_id, first.spiffe_id)


def handshake(client: Svid, server: Svid, bundle: tuple[bytes, ...]) -> tuple[str, str]:
    """Mutual TLS in memory; whom the client and the server saw."""
    ends = []
    for svid, protocol in ((client, ssl.PROTOCOL_TLS_CLIENT), (server, ssl.PROTOCOL_TLS_SERVER)):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        for der in bundle:
            context.load_verify_locations(cadata=der)
        with tempfile.NamedTemporaryFile() as file:
            key = serialization.load_der_private_key(svid.key, None)
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.write("".join(ssl.DER_cert_to_PEM_cert(der) for der in svid.chain).encode())
            file.flush()
            context.load_cert_chain(file.name)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        is_server = protocol == ssl.PROTOCOL_TLS_SERVER
        ends.append((context.wrap_bio(incoming, outgoing, server_side=is_server), incoming, outgoing))
    (near, near_in, near_out), (far, far_in, far_out) = ends
    for _ in range(4):
        for end in (near, far):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            far_in.write(near_out.read())
            near_in.write(far_out.read())
    bundles = {DOMAIN: bundle}
    ids = []
    for end in (near, far):
        chain: Any = end._sslobj.get_verified_chain()  # type: ignore[attr-defined]
        ids.append(verify_anchor([one.public_bytes(2) for one in chain], bundles))
    return ids[0], ids[1]
