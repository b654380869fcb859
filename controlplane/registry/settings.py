"""Settings of ``nsm-registry``, upstream's names (reference §5.2)."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from nsm.model.errors import NsmError
from nsm.policy.rules import rules_of
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


def _builtin(masks: tuple[str, ...]) -> tuple[str, ...]:
    """Masks select built-in policies; none switches the check off."""
    try:
        rules_of(masks)
    except NsmError as error:
        raise ValueError(error.message) from error
    return masks


PolicyMasks = Annotated[TextList, AfterValidator(_builtin)]


class RegistrySettings(NsmSettings):
    """What the registry can be told."""

    summary: ClassVar[str] = "Registry of network services and endpoints."

    name: str = "registry"
    listen_on: ListenUrls = ("unix:///listen.on.socket",)
    registry_server_policies: PolicyMasks = REGISTRY_SERVER_POLICIES
    registry_client_policies: PolicyMasks = REGISTRY_CLIENT_POLICIES
    proxy_registry_url: Target = Field(
        default="",
        description="registry of the gateway; names of other domains are refused until there is one",
    )
    expire_period: PositiveDuration = Field(default=60.0, description="longest life of a registration")
    store: str = Field(
        default="/var/lib/networkservicemesh/registry.sqlite",
        description=f"SQLite file that survives a restart, or {MEMORY!r}",
    )
