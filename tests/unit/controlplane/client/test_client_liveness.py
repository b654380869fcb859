"""The data path check: who pings whom, and real echoes inside a namespace that is not ours."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from controlplane.client.liveness import Liveness, pairs_of
from controlplane.client.ping import silent_pair
from controlplane.workload import OWN_NETNS
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.mechanism import KERNEL, LOCAL, NOOP, Mechanism
from nsmctl.errors import LabError
from nsmctl.lab import namespaces

BOTH = Connection(
    id="c",
    mechanism=Mechanism(LOCAL, KERNEL),
    context=ConnectionContext(
        ip_context=IpContext(
            src_ip_addrs=("10.0.0.1/32", "fd00::1/128"),
            dst_ip_addrs=("10.0.0.0/32", "10.0.0.2/32", "fd00::/128"),
        )
    ),
)


@pytest.fixture
def netns() -> Iterator[Path]:
    name = f"wl-{uuid.uuid4().hex[:8]}"
    try:
        path = namespaces.create(name)
    except LabError as error:
        pytest.skip(str(error))
    try:
        with namespaces.netlink(path) as ip:
            ip.addr("add", index=1, address="10.98.0.1", prefixlen=24)
        yield path
    finally:
        namespaces.delete(name)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_source_asks_every_target_of_its_family() -> None:
    assert [(str(src), str(dst)) for src, dst in pairs_of(BOTH)] == [
        ("10.0.0.1", "10.0.0.0"),
        ("10.0.0.1", "10.0.0.2"),
        ("fd00::1", "fd00::"),
    ]


async def test_what_cannot_be_asked_counts_as_alive() -> None:
    check = Liveness(OWN_NETNS)
    assert await check.alive(replace(BOTH, mechanism=Mechanism(LOCAL, NOOP)))
    assert await check.alive(replace(BOTH, context=None))


async def test_a_namespace_that_is_gone_is_not_alive(tmp_path: Path) -> None:
    assert not await Liveness(tmp_path / "gone").alive(BOTH)


@pytest.mark.netns
async def test_echoes_are_answered_inside_the_namespace_and_nothing_of_us_stays(netns: Path) -> None:
    home = os.stat(OWN_NETNS).st_ino  # noqa: PTH116 - the link's target
    before = open_descriptors()
    pairs = [(ip_address("127.0.0.1"), ip_address("127.0.0.1")), (ip_address("::1"), ip_address("::1"))]
    pairs.append((ip_address("10.98.0.1"), ip_address("127.0.0.1")))
    assert await silent_pair(netns, pairs, 5.0) is None
    assert os.stat(OWN_NETNS).st_ino == home  # noqa: PTH116
    assert open_descriptors() == before


@pytest.mark.netns
async def test_the_silent_pair_is_named(netns: Path) -> None:
    living = (ip_address("127.0.0.1"), ip_address("127.0.0.1"))
    dead = (ip_address("127.0.0.1"), ip_address("198.51.100.1"))  # no route there
    assert await silent_pair(netns, [living, dead], 0.2) == dead


@pytest.mark.netns
async def test_a_source_that_is_not_there_is_an_error(netns: Path) -> None:
    with pytest.raises(OSError, match="assign requested address"):
        await silent_pair(netns, [(ip_address("10.97.0.7"), ip_address("127.0.0.1"))], 0.2)


@pytest.mark.netns
async def test_our_own_namespace_is_asked_too() -> None:
    assert await silent_pair(OWN_NETNS, [(ip_address("127.0.0.1"), ip_address("127.0.0.1"))], 5.0) is None
    with pytest.raises(OSError, match="assign requested address"):
        await silent_pair(OWN_NETNS, [(ip_address("198.51.100.7"), ip_address("127.0.0.1"))], 0.2)
