"""Which dataplane to use, and why; which address tunnels start at."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forwarder_vpp.dataplane.vpp.profile import find_vpp
from forwarder_vpp.settings import ForwarderSettings
from nsm.model.errors import Code, NsmError

_EVERY_USER: Final = "4294967295"


@dataclass(frozen=True, slots=True)
class Choice:
    """``dataplane`` is ``vpp`` or ``linux``; ``why`` completes the sentence "using it, because"."""

    dataplane: str
    why: str


def choose(settings: ForwarderSettings, uid_map: Path = Path("/proc/self/uid_map")) -> Choice:
    """What the settings say; ``auto`` takes VPP where there is one and we may run it."""
    if settings.dataplane != "auto":
        return Choice(settings.dataplane, f"NSM_DATAPLANE={settings.dataplane}")
    if external_vpp(settings):
        named = f"NSM_VPP_API_SOCKET={settings.vpp_api_socket}"
        found = f"a VPP listens at {settings.vpp_api_socket}"
        return Choice("vpp", named if _is_named(settings) else found)
    if _EVERY_USER not in uid_map.read_text().split():
        return Choice("linux", "this is a user namespace, where VPP cannot run")
    try:
        binary = find_vpp()
    except NsmError as error:
        return Choice("linux", error.message)
    return Choice("vpp", f"VPP was found at {binary}")


def external_vpp(settings: ForwarderSettings) -> bool:
    """Whether a VPP that is not ours is to be used: one that was named, there or not, else one at the usual place."""
    path = settings.vpp_api_socket
    return bool(path) and (_is_named(settings) or Path(path).exists())


def _is_named(settings: ForwarderSettings) -> bool:
    return "vpp_api_socket" in settings.model_fields_set


def tunnel_ip(settings: ForwarderSettings) -> str:
    """NSM_TUNNEL_IP, else the address packets of the default route leave with.

    NsmError FAILED_PRECONDITION where there is neither.
    """
    if settings.tunnel_ip:
        return settings.tunnel_ip
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((anywhere, 9))  # sends nothing
            except OSError:
                continue
            return str(probe.getsockname()[0])
    text = "this node has no default route: say which address tunnels start at"
    raise NsmError(Code.FAILED_PRECONDITION, text, field="NSM_TUNNEL_IP")
