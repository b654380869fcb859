"""Settings of ``nsm-client``: upstream's names (reference §5.3) and a few of our own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field, PlainValidator

from controlplane.client.resolv_conf import check_path
from controlplane.client.service_url import ServiceUrl, parse_services
from controlplane.client.session import CLOSE_PATIENCE
from controlplane.workload import netns_path, netns_text
from nsm.service import values
from nsm.service.config import GoBool, NsmSettings, PositiveDuration, Target, TextMap, unprefixed

LONGEST_PATIENCE: Final = 25.0
"""Seconds; a daemon that has not ended 30 s after it was told to is cancelled."""


def _services(value: object) -> tuple[ServiceUrl, ...]:
    if isinstance(value, tuple) and all(isinstance(entry, ServiceUrl) for entry in value):
        return value
    return parse_services(values.text_list(value))


def _resolv_conf(value: object) -> str:
    if not isinstance(value, str) or (value and not value.startswith("/")):
        raise ValueError(f"expected the absolute path of a resolv.conf, got {value!r}")
    if value:
        check_path(Path(value))
    return value


def _patience(value: object) -> float:
    seconds = values.positive_duration(value)
    if seconds > LONGEST_PATIENCE:
        raise ValueError(f"expected at most {LONGEST_PATIENCE:g}s, got {value!r}")
    return seconds


class ClientSettings(NsmSettings):
    """Which services a workload wants, and in which namespace."""

    summary: ClassVar[str] = "A client of network services: requests them, keeps them alive, heals them."

    name: str = Field(
        default="nsc",
        min_length=1,
        description="name of our path segment; connection ids are <name>-<index>",
    )
    connect_to: Target = Field(
        default="unix:///var/lib/networkservicemesh/nsm.io.sock", description="the manager"
    )
    dial_timeout: PositiveDuration = 5.0
    network_services: Annotated[tuple[ServiceUrl, ...], PlainValidator(_services)] = Field(
        default=(), description="list of kernel://service[@domain]/interface?label=value"
    )
    labels: TextMap = Field(default_factory=dict, description="labels of every request; those of a URL win")
    netns: Annotated[str, PlainValidator(netns_text)] = Field(
        default="",
        description="network namespace that gets the interfaces: name, process id or path; empty: our own",
    )
    local_dns_server_enabled: GoBool = Field(
        default=True,
        description="apply the DNS configurations of the connections to the namespace's resolv.conf "
        "(there is no local server: the name servers are written as they are); false: leave DNS alone",
    )
    resolv_conf: Annotated[str, PlainValidator(_resolv_conf)] = Field(
        default="",
        description="the resolv.conf to write; empty: /etc/netns/<name>/resolv.conf when NSM_NETNS is a name, "
        "else none; /etc/resolv.conf only in a mount namespace of our own",
    )
    close_patience: Annotated[float, PlainValidator(_patience)] = Field(
        default=CLOSE_PATIENCE,
        description="how long to wait at the end for a manager that is away; at most 25s, "
        "and less than the time after which we are killed",
    )
    liveness_check_enabled: GoBool = Field(default=True, description="ping the endpoint through the service")
    liveness_check_interval: PositiveDuration = 0.2
    liveness_check_timeout: PositiveDuration = 1.0
    node_name: str = Field(default="", validation_alias=unprefixed("NODE_NAME"), description="label nodeName")
    pod_name: str = Field(default="", validation_alias=unprefixed("POD_NAME"), description="label podName")
    cluster_name: str = Field(
        default="", validation_alias=unprefixed("CLUSTER_NAME"), description="label clusterName"
    )

    @property
    def netns_file(self) -> Path:
        """The file of the namespace that gets the interfaces."""
        return netns_path(self.netns)

    @property
    def all_labels(self) -> Mapping[str, str]:
        """The labels every Request carries (reference §2.1)."""
        facts = {"nodeName": self.node_name, "podName": self.pod_name, "clusterName": self.cluster_name}
        return {key: value for key, value in facts.items() if value} | dict(self.labels)
