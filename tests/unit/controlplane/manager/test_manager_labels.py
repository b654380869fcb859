"""Labels of the node, public URL, excluded prefixes."""

import asyncio
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from controlplane.manager.labels import NodeLabels
from controlplane.manager.prefixes import ExcludedPrefixes, parse
from controlplane.manager.public_url import interface_addresses, public_url
from nsm.model.connection import Connection
from nsm.model.context import ConnectionContext, IpContext
from nsm.model.endpoint import NetworkServiceEndpoint

NODE = NodeLabels.of(node="n1", pod="", cluster="c")


def test_labels_are_added_where_they_are_not_there_yet() -> None:
    assert NODE.added_to({"nodeName": "n0", "app": "x"}) == {"nodeName": "n0", "app": "x", "clusterName": "c"}


def test_every_service_of_an_endpoint_gets_the_labels() -> None:
    endpoint = NetworkServiceEndpoint(
        network_service_names=("a", "b"), network_service_labels={"a": {"k": "v"}}
    )
    ours = {"nodeName": "n1", "clusterName": "c"}
    assert NODE.on_endpoint(endpoint).network_service_labels == {"a": {**ours, "k": "v"}, "b": ours}


FOUND = [ip_address(a) for a in ("127.0.0.1", "fe80::1", "fd00::1", "169.254.1.1", "10.0.0.7", "10.0.0.8")]


@pytest.mark.parametrize(
    ("listening", "expected"),
    [
        (("unix:///a", "tcp://10.0.0.1:5001", "tcp://10.0.0.2:5001"), "tcp://10.0.0.1:5001"),
        (("unix:///a", "unix:///b"), "unix:///a"),
        (("tcp://:5001",), "tcp://10.0.0.7:5001"),
        (("tcp://0.0.0.0:5001",), "tcp://10.0.0.7:5001"),
        (("tcp://[::]:5001",), "tcp://10.0.0.7:5001"),
        (("tcp://[fd00::1]:5001",), "tcp://[fd00::1]:5001"),
    ],
)
def test_the_public_url_is_the_first_tcp_one(listening: tuple[str, ...], expected: str) -> None:
    assert public_url(listening, lambda: FOUND) == expected


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([IPv6Address("fd00::1"), IPv6Address("::1")], "tcp://[fd00::1]:1"),
        ([IPv4Address("127.0.0.1")], "tcp://127.0.0.1:1"),
        ([], "tcp://127.0.0.1:1"),
    ],
)
def test_without_ipv4_it_is_ipv6_then_loopback(
    addresses: list[IPv4Address | IPv6Address], expected: str
) -> None:
    assert public_url(("tcp://:1",), lambda: addresses) == expected


def test_the_machines_own_addresses_are_read() -> None:
    assert all(isinstance(address, IPv4Address | IPv6Address) for address in interface_addresses())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("prefixes:\n- 10.0.0.0/8\n- fd00::/16\n", ("10.0.0.0/8", "fd00::/16")),
        ("prefixes: [10.0.0.1/8]", ("10.0.0.0/8",)),
        ("prefixes:", ()),
        ("other: 1", ()),
    ],
)
def test_prefix_files(text: str, expected: tuple[str, ...]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["[1]", "prefixes: 10.0.0.0/8", "prefixes: [300.0.0.0/8]"])
def test_malformed_prefix_files_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|does not appear"):
        parse(text)


def test_prefixes_are_added_once() -> None:
    excluded = ExcludedPrefixes(Path("/nowhere/file"))
    excluded._prefixes = ("10.0.0.0/8", "fd00::/16")
    context = ConnectionContext(mtu=1500, ip_context=IpContext(excluded_prefixes=("10.0.0.0/8",)))
    added = excluded.added_to(Connection(context=context))
    assert added.ip.excluded_prefixes == ("10.0.0.0/8", "fd00::/16")
    assert added.ctx.mtu == 1500
    assert excluded.added_to(added) is added
    assert excluded.added_to(Connection()).ip.excluded_prefixes == ("10.0.0.0/8", "fd00::/16")


def test_a_connection_has_an_ip_context_though_no_prefix_is_excluded() -> None:
    added = ExcludedPrefixes(Path("/nowhere/file")).added_to(Connection())
    assert added.ctx.ip_context == IpContext()


async def until(excluded: ExcludedPrefixes, prefixes: tuple[str, ...], changed: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        while excluded.prefixes != prefixes:
            changed.clear()
            await changed.wait()


async def test_the_file_is_followed_through_writing_replacing_and_removal(tmp_path: Path) -> None:
    file = tmp_path / "made" / "excluded_prefixes.yaml"
    changed = asyncio.Event()

    class Observed(ExcludedPrefixes):
        def reload(self) -> None:
            super().reload()
            changed.set()

    excluded = Observed(file)
    excluded.start()
    assert excluded.prefixes == ()
    file.write_text("prefixes: [10.0.0.0/8]")
    await until(excluded, ("10.0.0.0/8",), changed)
    fresh = tmp_path / "fresh"
    fresh.write_text("prefixes: [10.1.0.0/16]")
    fresh.replace(file)
    await until(excluded, ("10.1.0.0/16",), changed)
    file.write_text("prefixes: [nonsense]")  # what was before stays in force
    file.write_text("prefixes: [10.2.0.0/16]")
    await until(excluded, ("10.2.0.0/16",), changed)
    file.unlink()
    await until(excluded, (), changed)
    excluded.stop()


async def test_a_broken_file_leaves_the_prefixes_in_force(tmp_path: Path) -> None:
    file = tmp_path / "excluded_prefixes.yaml"
    file.write_text("prefixes: [10.0.0.0/8]")
    excluded = ExcludedPrefixes(file)
    excluded.start()
    file.write_text("prefixes: [nonsense]")
    excluded.reload()
    assert excluded.prefixes == ("10.0.0.0/8",)
    excluded.stop()
