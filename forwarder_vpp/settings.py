"""Settings of ``forwarder-vpp``, upstream's names (reference §5.5) and a few of our own."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from nsm.service.config import (
    REGISTRY_CLIENT_POLICIES,
    GoBool,
    ListenUrls,
    NsmSettings,
    Target,
    TextList,
    TextMap,
)

EXTERNAL_VPP = "/var/run/vpp/external/vpp-api.sock"


def _service(name: str) -> str:
    if not name or "_" in name:
        raise ValueError(f"expected a service name without an underscore, got {name!r}")
    return name


def _upper(types: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each.upper() for each in types)


class ForwarderSettings(NsmSettings):
    """What the forwarder of a node can be told."""

    summary: ClassVar[str] = (
        "Forwarder of a node: carries the packets of each connection, over VPP or the kernel."
    )

    name: str = "forwarder"
    labels: TextMap = Field(default={"p2p": "true"}, description="labels of our registration")
    nsname: Annotated[str, AfterValidator(_service)] = Field(
        default="forwarder", description="the network service forwarders register for"
    )
    connect_to: Target = Field(default="unix:///connect.to.socket", description="the node's manager")
    listen_on: ListenUrls = Field(
        default=("unix:///listen.on.socket",), description="where the manager reaches us"
    )
    registry_client_policies: TextList = REGISTRY_CLIENT_POLICIES
    tunnel_ip: str = Field(
        default="", description="our end of every tunnel; empty: that of the default route"
    )
    vxlan_port: int = Field(default=0, ge=0, le=65535, description="0 = 4789")
    mechanism_priority: Annotated[TextList, AfterValidator(_upper)] = Field(
        default=(), description="mechanism types offered first"
    )
    dataplane: Literal["auto", "vpp", "linux"] = "auto"
    state_dir: Path = Field(default=Path("/var/lib/nsm/forwarder"), description="what outlives us")
    vpp_api_socket: str = Field(
        default=EXTERNAL_VPP,
        description="a VPP that is not ours: one that is set is waited for, empty: none;"
        " where the default is no socket, we start one",
    )
    vpp_profile: str = Field(
        default="lab", description="start-up configuration of a VPP we start, or a template's path"
    )
    vpp_init: Literal["AF_PACKET", "NONE"] = Field(
        default="AF_PACKET", description="NONE: an external VPP has an uplink of its own"
    )
    keep_connections: GoBool = Field(
        default=True,
        description="when we end, leave what connections consist of for our next start;"
        " false: remove it, and a VPP that we started",
    )
    expedited: GoBool = Field(
        default=False,
        description="shorten the kernel's grace periods (machine-wide) while VPP makes or removes a ring",
    )
    warm_pool: int = Field(
        default=0,
        ge=0,
        le=64,
        description="links on VPP that stand ready for local connections, 8 MiB each; a connection takes two;"
        " with expedited none are, for it would be slower",
    )
