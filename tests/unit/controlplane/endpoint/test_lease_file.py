"""Leases on disk: all of them or the former ones, one write for many Requests."""

import asyncio
import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from controlplane.endpoint import leases
from controlplane.endpoint.ipam import Lease, Pair, PointToPointIpam
from controlplane.endpoint.leases import Kept, LeaseFile, LeaseFileError
from nsm.model.context import IpContext
from nsm.model.errors import Code, NsmError


def lease(number: int) -> Lease:
    return Lease(
        (Pair(ip_address(f"10.0.0.{number}"), ip_address(f"10.0.1.{number}")),), (ip_address("fd00::1"),)
    )


async def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state" / "leases.json"
    file = LeaseFile(path)
    assert file.load() == {}
    await file.put("a", Kept(lease(1), 100.5))
    await file.put("b", Kept(lease(2), 200.0))
    await file.remove("a")
    assert LeaseFile(path).load() == {"b": Kept(lease(2), 200.0)}
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
    await asyncio.gather(*(file.put(str(number), Kept(lease(number), 1.0)) for number in range(200)))
    assert len(writes) <= 2
    assert len(LeaseFile(tmp_path / "leases.json").load()) == 200


async def test_a_full_disk_refuses_the_request_and_keeps_the_former_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LeaseFile(tmp_path / "leases.json")
    await file.put("a", Kept(lease(1), 1.0))

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(leases, "_replace", full)
        for name in ("a", "b"):
            with pytest.raises(NsmError) as caught:
                await file.put(name, Kept(lease(9), 9.0))
            assert caught.value.code is Code.RESOURCE_EXHAUSTED
            assert "No space left on device" in caught.value.message
    await file.put("c", Kept(lease(3), 3.0))
    assert LeaseFile(tmp_path / "leases.json").load() == {"a": Kept(lease(1), 1.0), "c": Kept(lease(3), 3.0)}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 2, "leases": {}}', '{"version": 1, "leases": {"a": {}}}'],
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
    await file.put("a", Kept(pools.leases["a"], 7.0))
    after = PointToPointIpam(groups)
    kept = LeaseFile(tmp_path / "leases.json").load()["a"]
    assert after.install("a", kept.lease)
    assert after.leases == pools.leases
    assert json.loads((tmp_path / "leases.json").read_text())["version"] == 1
