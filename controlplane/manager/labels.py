"""Where a workload runs, as labels: added by the manager of its node where they are not there yet (reference §3.10)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from nsm.model.endpoint import NetworkServiceEndpoint

NODE_NAME: Final = "nodeName"
POD_NAME: Final = "podName"
CLUSTER_NAME: Final = "clusterName"


@dataclass(frozen=True, slots=True)
class NodeLabels:
    """The labels of this node; an empty value is not added."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, *, node: str, pod: str, cluster: str) -> "NodeLabels":
        """From the values of NODE_NAME, POD_NAME and CLUSTER_NAME."""
        given = {NODE_NAME: node, POD_NAME: pod, CLUSTER_NAME: cluster}
        return cls({key: value for key, value in given.items() if value})

    def added_to(self, labels: Mapping[str, str]) -> dict[str, str]:
        """``labels`` with ours where it has none of that key."""
        return {**self.values, **labels}

    def on_endpoint(self, endpoint: NetworkServiceEndpoint) -> NetworkServiceEndpoint:
        """The endpoint with ours among its labels for every service."""
        services = dict.fromkeys((*endpoint.network_service_names, *endpoint.network_service_labels))
        labels = {service: self.added_to(endpoint.labels(service)) for service in services}
        return replace(endpoint, network_service_labels=labels)
