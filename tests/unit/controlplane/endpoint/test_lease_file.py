"""Leases on disk: all of them or the former ones, one write for many Requests."""

import asyncio
import json
import threading
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from controlplane.endpoint import leases
from controlplane.endpoint.ipam import Lease, Pair, PointToPointIpam
from controlplane.endpoint.leases import Kept, LeaseFile, LeaseFileError
from nsm.model.connection import Connection
from nsm.model.context import IpContext
from nsm.model.errors import Code, NsmError
from nsm.model.path import Path as NsmPath
from nsm.model.path import PathSegment


def lease(number: int) -> Lease:
    return Lease(
        (Pair(ip_address(f"10.0.0.{number}"), ip_address(f"10.0.1.{number}")),), (ip_address("fd00::1"),)
    )


def kept(number: int, expires: float) -> Kept:
    path = NsmPath(1, (PathSegment("fwd", "f-1", "token", 5), PathSegment("nse", f"n-{number}")))
    return Kept(lease(number), expires, Connection(id=f"n-{number}", path=path))


async def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "leases.json"
    file = LeaseFile(path)
    assert file.load() == {}
    await file.put("a", kept(1, 100.5))
    await file.put("b", kept(2, 200.0))
    await file.remove("a")
    assert LeaseFile(path).load() == {"b": kept(2, 200.0)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


async def test_requests_that_come_together_share_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []
    really = leases._replace

    def counted(path: Path, text: str) -> None:
        writes.append(text)
        really(path, text)

    monkeypatch.setattr(leases, "_replace", counted)
    file = LeaseFile(tmp_path / "leases.json")
    await asyncio.gather(*(file.put(str(number), kept(number, 1.0)) for number in range(200)))
    assert len(writes) <= 2
    assert len(LeaseFile(tmp_path / "leases.json").load()) == 200


async def test_a_write_whose_request_is_given_up_does_not_meet_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    really = leases._replace

    def slow(path: Path, text: str) -> None:
        if not begun.is_set():
            begun.set()
            may_end.wait(30)
        really(path, text)

    monkeypatch.setattr(leases, "_replace", slow)
    file = LeaseFile(tmp_path / "leases.json")
    given_up = asyncio.create_task(file.put("a", kept(1, 1.0)))
    await asyncio.to_thread(begun.wait, 30)
    given_up.cancel()
    await asyncio.wait({given_up})
    following = asyncio.create_task(file.put("b", kept(2, 2.0)))
    done, _ = await asyncio.wait({following}, timeout=0.1)
    assert not done
    may_end.set()
    await following
    assert LeaseFile(tmp_path / "leases.json").load() == {"b": kept(2, 2.0)}


async def test_a_full_disk_refuses_the_request_and_keeps_the_former_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LeaseFile(tmp_path / "leases.json")
    await file.put("a", kept(1, 1.0))

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(leases, "_replace", full)
        for name in ("a", "b"):
            with pytest.raises(NsmError) as caught:
                await file.put(name, kept(9, 9.0))
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            assert "No space left on device" in caught.value.message
    await file.put("c", kept(3, 3.0))
    assert LeaseFile(tmp_path / "leases.json").load() == {"a": kept(1, 1.0), "c": kept(3, 3.0)}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 1, "leases": {}}', '{"version": 2, "leases": {"a": {}}}'],
)
def test_a_broken_file_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "leases.json"
    path.write_text(text)
    with pytest.raises(LeaseFileError, match="expected leases as JSON"):
        LeaseFile(path).load()


async def test_leases_of_the_pools_survive_the_format(tmp_path: Path) -> None:
    groups = [[ip_network("10.0.0.0/24")], [ip_network("fd00::/64")]]
    pools = PointToPointIpam(groups)
    pools.request("a", IpContext(src_ip_addrs=("10.0.0.77/32",)))
    file = LeaseFile(tmp_path / "leases.json")
    await file.put("a", replace(kept(0, 7.0), lease=pools.leases["a"]))
    after = PointToPointIpam(groups)
    found = LeaseFile(tmp_path / "leases.json").load()["a"]
    assert after.install("a", found.lease)
    assert after.leases == pools.leases
    assert json.loads((tmp_path / "leases.json").read_text())["version"] == 2
