"""Upstream's settings that mean nothing to this forwarder: each set one is named once in the log, with the reason.

The names are those of cmd-forwarder-vpp (docs/drop-in.md has the whole table). What it says of a setting must be so:
who relied on one shall read at start what became of it.
"""

from collections.abc import Mapping
from typing import Final

import structlog

_LOG: Final = structlog.get_logger(__name__)

_NO_TRACES: Final = "neither traces nor metrics are exported; counters are in the path of each connection"
_NO_PROMETHEUS: Final = "metrics are not served; counters are in the path of each connection"
_NO_PPROF: Final = "there is no profile of a Go program to serve"
_NO_SRIOV: Final = "SR-IOV devices are not carried"

IGNORED: Final[Mapping[str, str]] = {
    "NSM_OPEN_TELEMETRY_ENDPOINT": _NO_TRACES,
    "NSM_METRICS_EXPORT_INTERVAL": _NO_TRACES,
    "NSM_PPROF_ENABLED": _NO_PPROF,
    "NSM_PPROF_LISTEN_ON": _NO_PPROF,
    "NSM_PROMETHEUS_LISTEN_ON": _NO_PROMETHEUS,
    "NSM_PROMETHEUS_CA_FILE": _NO_PROMETHEUS,
    "NSM_PROMETHEUS_KEY_FILE": _NO_PROMETHEUS,
    "NSM_PROMETHEUS_CERT_FILE": _NO_PROMETHEUS,
    "NSM_PROMETHEUS_MONITOR_CERTIFICATE": _NO_PROMETHEUS,
    "NSM_PROMETHEUS_SERVER_HEADER_TIMEOUT": _NO_PROMETHEUS,
    "NSM_PROMETHEUS_MAX_BIND_THRESHOLD": _NO_PROMETHEUS,
    "NSM_VPP_INIT_PARAMS": "the sizes of rings are in the profile, NSM_VPP_PROFILE",
    "NSM_VPP_MIN_OPERATION_TIMEOUT": "each message to VPP may take 5 s, whatever deadline the Request has",
    "NSM_DEVICE_SELECTOR_FILE": "VLANs of the node's network are not carried",
    "NSM_SRIOV_CONFIG_FILE": _NO_SRIOV,
    "NSM_RESOURCE_POLL_TIMEOUT": _NO_SRIOV,
    "NSM_DEVICE_PLUGIN_PATH": _NO_SRIOV,
    "NSM_POD_RESOURCES_PATH": _NO_SRIOV,
    "NSM_PCI_DEVICES_PATH": _NO_SRIOV,
    "NSM_PCI_DRIVERS_PATH": _NO_SRIOV,
    "NSM_CGROUP_PATH": _NO_SRIOV,
    "NSM_VFIO_PATH": _NO_SRIOV,
}
"""Why, by variable."""


def name_ignored(environment: Mapping[str, str]) -> None:
    """One warning ``setting.ignored`` for each of them that is set, be it to upstream's default."""
    for variable, why in IGNORED.items():
        if variable in environment:
            _LOG.warning("setting.ignored", variable=variable, why=why)
