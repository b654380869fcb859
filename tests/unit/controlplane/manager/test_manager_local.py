"""Endpoints of the node: sockets kept by descriptor, URLs as the registry and as we know them."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.manager.local import LocalEndpoints
from nsm.model.endpoint import EndpointResponse, NetworkServiceEndpoint

OURS = "tcp://10.0.0.1:5001"
ENDPOINT = NetworkServiceEndpoint(
    name="nse", network_service_names=("s",), url="inode://1/2", expiration_time=10
)


class Dropped(list[str]):
    """Remembers the URLs, and that their descriptor was still open then."""

    async def __call__(self, url: str) -> None:
        if url.startswith("unix:///proc/self/fd/"):
            os.fstat(int(url.rpartition("/")[2]))
        self.append(url)


@pytest.fixture
def dropped() -> Dropped:
    return Dropped()


@pytest.fixture
def local(dropped: Dropped) -> LocalEndpoints:
    return LocalEndpoints(OURS, dropped)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "nse.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield path


def o_path(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_socket_is_dialled_through_its_descriptor(local: LocalEndpoints, listener: Path) -> None:
    await local.put(ENDPOINT, o_path(listener))
    known = local.get("nse")
    assert known is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(known.url.removeprefix("unix://"))
    assert [e.name for e in local.serving("s")] == ["nse"]
    assert local.serving("t") == []
    await local.close()


async def test_a_renewal_of_the_same_socket_keeps_url_and_descriptor(
    local: LocalEndpoints, dropped: Dropped, listener: Path
) -> None:
    before = count()
    await local.put(ENDPOINT, o_path(listener))
    first = local.get("nse")
    await local.put(replace(ENDPOINT, expiration_time=20), o_path(listener))
    again = local.get("nse")
    assert first is not None
    assert again is not None
    assert again.url == first.url
    assert again.endpoint.expiration_time == 20
    assert dropped == []
    await local.remove("nse")
    assert dropped == [first.url]
    assert count() == before


async def test_another_socket_replaces_it_and_frees_the_old_one(
    local: LocalEndpoints, dropped: Dropped, listener: Path, tmp_path: Path
) -> None:
    before = count()
    await local.put(ENDPOINT, o_path(listener))
    first = local.get("nse")
    other = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(other))
        await local.put(ENDPOINT, o_path(other))
    second = local.get("nse")
    assert first is not None
    assert second is not None
    assert dropped == [first.url]
    await local.remove("nse")
    await local.remove("nse")
    assert count() == before


async def test_find_results_show_our_endpoints_by_the_url_we_dial(local: LocalEndpoints) -> None:
    await local.put(replace(ENDPOINT, url="tcp://127.0.0.1:9", expiration_time=30), None)
    ours = EndpointResponse(replace(ENDPOINT, url=OURS))
    shown = local.shown(ours)
    assert shown is not None
    assert shown.network_service_endpoint.url == "tcp://127.0.0.1:9"
    assert shown.network_service_endpoint.expiration_time == 30  # renewed here while the registry was away
    elsewhere = EndpointResponse(replace(ENDPOINT, url="tcp://10.0.0.2:5001"))
    assert local.shown(elsewhere) is elsewhere


async def test_stale_entries_of_ours_are_hidden_unless_deleted(local: LocalEndpoints) -> None:
    stale = EndpointResponse(replace(ENDPOINT, url=OURS))
    assert local.shown(stale) is None
    gone = replace(stale, deleted=True)
    assert local.shown(gone) is gone
