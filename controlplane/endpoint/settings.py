"""Settings of ``nsm-endpoint``: upstream's names (reference §5.4) and a few of our own."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator

from controlplane.workload import netns_path, netns_text
from nsm.model.context import DnsConfig
from nsm.model.mechanism import ETHERNET, PAYLOADS
from nsm.service import values
from nsm.service.config import (
    REGISTRY_CLIENT_POLICIES,
    Duration,
    GoBool,
    ListenUrls,
    NsmSettings,
    PositiveDuration,
    Target,
    TextList,
    TextMap,
)

_CIDR = values.prefix_groups("169.254.0.0/16")


def _payload(value: object) -> str:
    text = value.strip().upper() if isinstance(value, str) else ""
    if text not in PAYLOADS:
        raise ValueError(f"expected one of {', '.join(PAYLOADS)}, got {value!r}")
    return text


def _policy(value: object) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in {"polite", "strict"}:
        raise ValueError(f"expected polite or strict, got {value!r}")
    return text


def _groups(value: object) -> tuple[tuple[values.Network, ...], ...]:
    groups = values.prefix_groups(value)
    if not groups:
        raise ValueError(f"expected at least one prefix like 10.0.0.0/24, got {value!r}")
    return groups


def _dns(value: object) -> tuple[DnsConfig, ...]:
    """JSON, or the absolute path of a file that holds it."""
    if isinstance(value, str) and value.startswith("/"):
        try:
            value = Path(value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"expected a readable file of DNS configurations, got {error}") from error
    return values.dns_configs(value)


def _names(value: object) -> tuple[str, ...]:
    names = values.text_list(value)
    if not names:
        raise ValueError(f"expected at least one name of a network service, got {value!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"expected each network service once, got {value!r}")
    return names


class EndpointSettings(NsmSettings):
    """What one endpoint serves and gives to its clients."""

    summary: ClassVar[str] = "An endpoint of network services: addresses, DNS, policy routes, an interface."

    name: str = Field(
        default="icmp-server", min_length=1, description="name of the endpoint and of its path segment"
    )
    connect_to: Target = Field(
        default="unix:///var/lib/networkservicemesh/nsm.io.sock", description="the manager to register with"
    )
    dial_timeout: PositiveDuration = 5.0
    listen_on: ListenUrls = Field(
        default=(), description="where to serve; empty: a unix socket in a fresh private directory"
    )
    service_names: Annotated[tuple[str, ...], PlainValidator(_names)] = ("icmp-responder",)
    payload: Annotated[str, PlainValidator(_payload)] = Field(
        default=ETHERNET, description="payload of the services, ETHERNET or IP"
    )
    labels: TextMap = Field(default_factory=dict, description="labels of the endpoint, for every service")
    cidr_prefix: Annotated[tuple[tuple[values.Network, ...], ...], PlainValidator(_groups)] = Field(
        default=_CIDR, description="address pools; a pair of addresses from each group: [a,b],[c]"
    )
    ipam_policy: Annotated[Literal["polite", "strict"], PlainValidator(_policy)] = "polite"
    dns_configs: Annotated[tuple[DnsConfig, ...], PlainValidator(_dns)] = Field(
        default=(), description="JSON list with dns_server_ips and search_domains, or the path of such a file"
    )
    pbr_config_path: str = Field(
        default="/etc/policy-based-routing/config.yaml",
        description="YAML list of policy routes; read again when it changes; need not exist",
    )
    registry_client_policies: TextList = REGISTRY_CLIENT_POLICIES
    register_service: GoBool = Field(default=True, description="also register the services themselves")
    unregister_itself: GoBool = Field(default=False, description="unregister the endpoint at the end")
    idle_timeout: Duration = Field(
        default=0.0, description="end after this long without a connection; 0s: never"
    )
    netns: Annotated[str, PlainValidator(netns_text)] = Field(
        default="",
        description="network namespace that gets the interfaces: name, process id or path; empty: our own",
    )
    lease_file: str = Field(
        default="",
        description="keeps the leases over a restart; empty: they are recovered from the clients' refreshes",
    )

    @property
    def netns_file(self) -> Path:
        """The file of the namespace that gets the interfaces."""
        return netns_path(self.netns)
