"""Settings of ``nsm-manager``, upstream's names (reference §5.1)."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from controlplane.registry.settings import PolicyMasks
from nsm.service.config import (
    REGISTRY_CLIENT_POLICIES,
    REGISTRY_SERVER_POLICIES,
    ListenUrls,
    NsmSettings,
    Target,
    unprefixed,
)

EXCLUDED_PREFIXES = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"


def _required(url: str) -> str:
    """Upstream takes an empty URL and then finds no forwarder for any Request (trap 57)."""
    if not url:
        raise ValueError("expected the URL of a registry, got ''")
    return url


class ManagerSettings(NsmSettings):
    """What the manager of a node can be told."""

    summary: ClassVar[str] = "Manager of a node: sends each connection to a forwarder of the node."

    name: str = "nmgr"
    listen_on: ListenUrls = Field(
        default=("unix:///var/lib/networkservicemesh/nsm.io.sock",),
        description="the first tcp:// one is how other nodes reach us",
    )
    registry_url: Annotated[Target, AfterValidator(_required)] = "tcp://localhost:5001"
    registry_server_policies: PolicyMasks = REGISTRY_SERVER_POLICIES
    registry_client_policies: PolicyMasks = REGISTRY_CLIENT_POLICIES
    forwarder_network_service_name: str = "forwarder"
    excluded_prefixes_file: Path = Field(
        default=Path(EXCLUDED_PREFIXES), description="YAML file with the key prefixes; changes are noticed"
    )
    node_name: str = Field(default="", validation_alias=unprefixed("NODE_NAME"))
    pod_name: str = Field(default="", validation_alias=unprefixed("POD_NAME"))
    cluster_name: str = Field(default="", validation_alias=unprefixed("CLUSTER_NAME"))
