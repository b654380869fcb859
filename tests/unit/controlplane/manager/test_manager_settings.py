"""Settings of manager and registry by upstream's names."""

from pathlib import Path

import pytest

from controlplane.manager.settings import EXCLUDED_PREFIXES, ManagerSettings
from controlplane.registry.settings import RegistrySettings
from nsm.service.config import REGISTRY_SERVER_POLICIES, ConfigError, load


@pytest.fixture(autouse=True)
def only_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings in (ManagerSettings, RegistrySettings):
        for field in settings.model_fields:
            monkeypatch.delenv(f"NSM_{field.upper()}", raising=False)
    for name in ("NODE_NAME", "POD_NAME", "CLUSTER_NAME", "SPIFFE_ENDPOINT_SOCKET"):
        monkeypatch.delenv(name, raising=False)


def test_defaults_are_upstreams() -> None:
    manager, registry = load(ManagerSettings), load(RegistrySettings)
    assert (manager.name, manager.dial_timeout) == ("nmgr", 0.75)
    assert manager.listen_on == ("unix:///var/lib/networkservicemesh/nsm.io.sock",)
    assert manager.registry_url == "tcp://localhost:5001"
    assert manager.excluded_prefixes_file == Path(EXCLUDED_PREFIXES)
    assert registry.listen_on == ("unix:///listen.on.socket",)
    assert registry.registry_server_policies == REGISTRY_SERVER_POLICIES


def test_upstreams_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NSM_NAME": "nsmgr-1",
        "NSM_LISTEN_ON": "unix:///run/nsm.io.sock,tcp://:5001",
        "NSM_REGISTRY_URL": "registry:5002",
        "NSM_REGISTRY_SERVER_POLICIES": "",
        "NSM_FORWARDER_NETWORK_SERVICE_NAME": "fwd",
        "NODE_NAME": "n1",
        "POD_NAME": "p1",
        "CLUSTER_NAME": "c1",
    }.items():
        monkeypatch.setenv(name, value)
    manager = load(ManagerSettings)
    assert manager.listen_on == ("unix:///run/nsm.io.sock", "tcp://:5001")
    assert manager.registry_server_policies == ()
    assert (manager.node_name, manager.pod_name, manager.cluster_name) == ("n1", "p1", "c1")
    assert (manager.registry_url, manager.forwarder_network_service_name) == ("registry:5002", "fwd")


def test_a_manager_needs_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSM_REGISTRY_URL", "")
    with pytest.raises(ConfigError, match="NSM_REGISTRY_URL: expected the URL of a registry"):
        load(ManagerSettings)


@pytest.mark.parametrize("mask", ["/my/own.rego", "etc/nsm/opa/nothing/.*.rego", "("])
def test_policies_that_are_not_built_in_are_refused(monkeypatch: pytest.MonkeyPatch, mask: str) -> None:
    monkeypatch.setenv("NSM_REGISTRY_CLIENT_POLICIES", mask)
    with pytest.raises(ConfigError, match="NSM_REGISTRY_CLIENT_POLICIES: expected"):
        load(RegistrySettings)


def test_the_registrys_store_and_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSM_STORE", "memory")
    monkeypatch.setenv("NSM_EXPIRE_PERIOD", "1m30s")
    registry = load(RegistrySettings)
    assert (registry.store, registry.expire_period) == ("memory", 90.0)
