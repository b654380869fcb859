"""The endpoint's variables under upstream's names; every mistake names its variable and the expectation."""

import asyncio
import socket
import tempfile
from ipaddress import ip_network
from pathlib import Path

import pytest

from controlplane.endpoint.idle import Idle
from controlplane.endpoint.policy_file import PolicyFile
from controlplane.endpoint.policy_routes import PolicyRouteError
from controlplane.endpoint.serving import _sweep
from controlplane.endpoint.settings import EndpointSettings
from nsm.model.context import DnsConfig, PolicyRoute
from nsm.service.config import ConfigError, load


def test_defaults_are_upstreams() -> None:
    settings = load(EndpointSettings)
    assert settings.name == "icmp-server"
    assert settings.service_names == ("icmp-responder",)
    assert settings.payload == "ETHERNET"
    assert settings.cidr_prefix == ((ip_network("169.254.0.0/16"),),)
    assert (settings.register_service, settings.unregister_itself, settings.idle_timeout) == (
        True,
        False,
        0.0,
    )
    assert settings.ipam_policy == "polite"


def test_upstreams_variables_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dns = tmp_path / "dns.json"
    dns.write_text('[{"dns_server_ips": ["10.0.0.1"], "search_domains": ["a"]}]')
    for name, value in {
        "NSM_SERVICE_NAMES": "a, b",
        "NSM_PAYLOAD": "ip",
        "NSM_LABELS": "app:db,tier:1",
        "NSM_CIDR_PREFIX": "[172.16.0.0/24,172.17.0.0/24],[fd00::/120]",
        "NSM_IPAM_POLICY": "strict",
        "NSM_DNS_CONFIGS": str(dns),
        "NSM_IDLE_TIMEOUT": "1m30s",
        "NSM_REGISTER_SERVICE": "false",
        "NSM_UNREGISTER_ITSELF": "true",
        "NSM_NETNS": "blue",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load(EndpointSettings)
    assert settings.service_names == ("a", "b")
    assert settings.payload == "IP"
    assert dict(settings.labels) == {"app": "db", "tier": "1"}
    assert [len(group) for group in settings.cidr_prefix] == [2, 1]
    assert settings.dns_configs == (DnsConfig(("10.0.0.1",), ("a",)),)
    assert settings.idle_timeout == 90.0
    assert settings.netns_file == Path("/run/netns/blue")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("NSM_SERVICE_NAMES", " , ", "expected at least one name"),
        ("NSM_SERVICE_NAMES", "a,a", "expected each network service once"),
        ("NSM_PAYLOAD", "MPLS", "expected one of ETHERNET, IP"),
        ("NSM_CIDR_PREFIX", "", "expected at least one prefix"),
        ("NSM_CIDR_PREFIX", "10.0.0.0/33", "expected a prefix"),
        ("NSM_IPAM_POLICY", "rude", "expected polite or strict"),
        ("NSM_DNS_CONFIGS", "/does/not/exist", "expected a readable file"),
        ("NSM_NETNS", "a/b", "expected the name of a network namespace"),
        ("NSM_IDLE_TIMEOUT", "soon", "expected a duration"),
    ],
)
def test_a_mistake_names_variable_and_expectation(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load(EndpointSettings)
    assert f"{variable}: {expected}" in str(caught.value)


async def test_policies_follow_the_file_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pbr.yaml"
    file = PolicyFile(path)
    assert await file.policies() == ()
    path.write_text("- {from: 10.0.0.1/32, proto: 6, dstport: 80}\n")
    expected = (PolicyRoute(source="10.0.0.1/32", proto="6", dst_port="80"),)
    assert await file.policies() == expected
    path.write_text("- {from: nowhere, proto: 6}\n")
    assert await file.policies() == expected
    path.unlink()
    assert await file.policies() == ()
    path.write_text("- 1\n")
    with pytest.raises(PolicyRouteError):
        PolicyFile(path)


def timer_of(idle: Idle) -> asyncio.TimerHandle | None:
    return idle._timer


async def test_idle_counts_only_while_there_is_no_connection() -> None:
    ended: list[bool] = []
    idle = Idle(10.0, lambda: ended.append(True))
    idle.start()
    first = timer_of(idle)
    assert first is not None
    idle.busy("a")
    assert first.cancelled()
    idle.busy("b")
    idle.gone("a")
    assert timer_of(idle) is None
    idle.gone("b")
    second = timer_of(idle)
    assert second is not None
    second._run()
    assert ended == [True]
    idle.stop()
    never = Idle(0.0, lambda: ended.append(True))
    never.start()
    assert timer_of(never) is None


def test_only_sockets_that_nobody_listens_on_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    names = ("nsm-endpoint-a-dead", "nsm-endpoint-a-live", "nsm-endpoint-a-new", "nsm-endpoint-b-dead")
    sockets = {}
    for name in names:
        (tmp_path / name).mkdir()
        sockets[name] = socket.socket(socket.AF_UNIX)
        if not name.endswith("new"):
            sockets[name].bind(str(tmp_path / name / "listen.on"))
    sockets["nsm-endpoint-a-live"].listen()
    try:
        _sweep("nsm-endpoint-a-")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[1:])
    finally:
        for one in sockets.values():
            one.close()
