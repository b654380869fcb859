"""A Go component (go-spiffe) lives on the embedded identity service: start-up, mutual TLS, rotation."""

import asyncio
import os
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from nsm.identity.authority import create_authority, save_authority
from nsm.identity.service import IdentityService, Places
from nsm.identity.source import SpiffeSource
from nsm.model.identity import Material

from . import peers

REGISTRY = peers.find(peers.REGISTRY)

pytestmark = peers.needs(peers.REGISTRY)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nsm-go-") as path:
        yield Path(path)


@pytest.fixture
async def service(directory: Path) -> AsyncIterator[IdentityService]:
    """On an intermediate authority, as a second host has it; SVIDs live 4 s."""
    root = create_authority("example.org")
    save_authority(directory / "authority.pem", root.sign_node("node-2", 86400, time.time()))
    entries = [
        {"spiffe_id": f"spiffe://example.org/{name}"} for name in ("registry/registry", "client/nsc-1")
    ]
    (directory / "identities.yaml").write_text(yaml.safe_dump({"svid_ttl": "4s", "entries": entries}))
    service = IdentityService(
        Places(directory / "identities.yaml", directory / "authority.pem", directory / "s")
    )
    await service.start()
    yield service
    await service.stop()


async def test_a_go_registry_starts_and_takes_our_certificates_before_and_after_rotation(
    directory: Path, service: IdentityService
) -> None:
    assert REGISTRY is not None
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        REGISTRY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            "PATH": os.environ["PATH"],
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{directory}/s/registry.sock",
            "NSM_LISTEN_ON": f"tcp://127.0.0.1:{port}",
        },
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"Startup completed" not in await process.stdout.readline():
                pass
        source = await SpiffeSource.connect(f"unix://{directory}/s/nsc-1.sock")
        updates: asyncio.Queue[Material] = asyncio.Queue()
        source.subscribe(updates.put_nowait)
        leaves = set()
        for _ in range(2):
            chain = await asyncio.to_thread(greet, source.current, port)
            assert source.verify_anchor(chain) == "spiffe://example.org/registry/registry"
            assert len(chain) == 3
            leaves.add(chain[0])
            async with asyncio.timeout(60):
                await updates.get()
                await updates.get()  # the registry's SVID was as old as ours: by now it has a new one as well
        assert len(leaves) == 2
        await source.close()
    finally:
        process.kill()
        await process.wait()


def greet(material: Material, port: int) -> list[bytes]:
    """Mutual TLS with the server until it has accepted us (its SETTINGS frame arrives); its verified chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    for der in material.bundles["example.org"]:
        context.load_verify_locations(cadata=der)
    key = serialization.load_der_private_key(material.svid.key, None)
    with tempfile.NamedTemporaryFile() as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        file.write("".join(ssl.DER_cert_to_PEM_cert(der) for der in material.svid.chain).encode())
        file.flush()
        context.load_cert_chain(file.name)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain) as secure,
    ):
        frame = secure.recv(9)
        assert frame[3] == 4, frame  # SETTINGS
        inner: Any = secure._sslobj  # type: ignore[attr-defined]
        return [one.public_bytes(2) for one in inner.get_verified_chain()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
