"""Settings of ``nsm-registry``, upstream's names (reference §5.2)."""

from typing import ClassVar

from pydantic import Field

from nsm.service.config import (
    REGISTRY_CLIENT_POLICIES,
    REGISTRY_SERVER_POLICIES,
    ListenUrls,
    NsmSettings,
    PositiveDuration,
    Target,
    TextList,
)

MEMORY = "memory"


class RegistrySettings(NsmSettings):
    """What the registry can be told."""

    summary: ClassVar[str] = "Registry of network services and endpoints."

    name: str = "registry"
    listen_on: ListenUrls = ("unix:///listen.on.socket",)
    registry_server_policies: TextList = REGISTRY_SERVER_POLICIES
    registry_client_policies: TextList = REGISTRY_CLIENT_POLICIES
    proxy_registry_url: Target = Field(
        default="",
        description="registry of the gateway; names of other domains are refused until there is one",
    )
    expire_period: PositiveDuration = Field(default=60.0, description="longest life of a registration")
    store: str = Field(
        default="/var/lib/networkservicemesh/registry.sqlite",
        description=f"SQLite file that survives a restart, or {MEMORY!r}",
    )
